"""The prompt, and its token ids."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from specvla_ros.errors import CheckpointError, ConfigurationError

BOS_ID = 1
EMPTY_ID = 29871
"""Llama-2's lone-space token, which OpenVLA was trained to find between the prompt and the action."""
TOKENIZER_FILE = "tokenizer.json"


def build_prompt(instruction: str) -> str:
    """OpenVLA's question, with the instruction in lower case."""
    return f"In: What action should the robot take to {instruction.lower()}?\nOut:"


class PromptTokenizer:
    """Instruction to ids by the checkpoint's own tokenizer.json.

    Raises:
        CheckpointError: the file is missing or is not a tokenizer.
    """

    def __init__(self, directory: Path) -> None:
        self._path = path = directory / TOKENIZER_FILE
        if not path.is_file():
            raise CheckpointError(
                f"{path} is missing; copy tokenizer.json of the base model (openvla/openvla-7b) there"
            )
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception for a file it cannot read
            raise CheckpointError(f"{path} is not a tokenizer: {error}; download the file again") from error
        # The file may hold what some training batch was cut and filled up to; upstream's call ignores both.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.encode = lru_cache(maxsize=64)(self._encode)

    def require_rows(self, rows: int) -> None:
        """Refuse ids that an embedding of so many rows does not have.

        Raises:
            CheckpointError: the tokenizer is another model's.
        """
        if (highest := max(self._tokenizer.get_vocab().values(), default=0)) >= rows:
            raise CheckpointError(
                f"{self._path} has ids up to {highest}, and the checkpoint's vocabulary ends at {rows - 1}; copy the "
                "tokenizer.json that belongs to it"
            )

    def _encode(self, instruction: str) -> tuple[int, ...]:
        """Ids of the prompt, BOS first and the empty token last.

        Raises:
            ConfigurationError: the instruction is blank, or no text.
        """
        if not instruction.strip():
            raise ConfigurationError(
                "the instruction is empty; say what the robot should do, for example 'pick up the bowl'"
            )
        try:
            instruction.encode()
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"the instruction {instruction!r} is not UTF-8 text; write it as UTF-8") from error
        ids = self._tokenizer.encode(build_prompt(instruction)).ids
        if ids[:1] != [BOS_ID]:
            ids = [BOS_ID, *ids]
        return tuple(ids if ids[-1] == EMPTY_ID else [*ids, EMPTY_ID])


SMALL_CORPUS = (
    "In: What action should the robot take to pick up the black bowl and place it on the plate?\nOut:",
    "open the middle drawer of the cabinet, put the bottle on top, push it to the front of the stove",
    "turn on the stove, close the top drawer, put the cream cheese in the basket, next to the wooden cabinet",
    "lift the red cube, stack the green block on the blue block, move the left cup between the right mugs",
)


def write_small_tokenizer(directory: Path) -> None:
    """Write a tokenizer.json of this package's own: byte pairs learned from a few sentences about manipulation.

    Every text can be written in it; its few hundred ids stay far below the action tokens. Used by the small models
    that this package makes, which share no vocabulary with Llama-2.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SMALL_CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS_ID)])
    tokenizer.save(str(directory / TOKENIZER_FILE))
