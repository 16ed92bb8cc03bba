from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from specvla_ros.errors import CheckpointError, ConfigurationError
from specvla_ros.vla.prompt import EMPTY_ID, PromptTokenizer, build_prompt, write_small_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PromptTokenizer:
    directory = tmp_path_factory.mktemp("tokenizer")
    write_small_tokenizer(directory)
    return PromptTokenizer(directory)


def test_the_prompt_is_openvlas_with_the_instruction_in_lower_case() -> None:
    assert build_prompt("Pick up the Bowl") == "In: What action should the robot take to pick up the bowl?\nOut:"


@given(instruction=st.text(min_size=1, max_size=60).filter(str.strip))
def test_any_text_gets_ids_that_are_no_actions_with_bos_first_and_the_empty_token_last(
    tokenizer: PromptTokenizer, instruction: str
) -> None:
    ids = tokenizer.encode(instruction)
    assert ids[0] == 1 and ids[-1] == EMPTY_ID and EMPTY_ID not in ids[:-1]
    assert all(0 <= id < 1024 for id in ids[:-1])


def test_different_instructions_get_different_ids(tokenizer: PromptTokenizer) -> None:
    assert tokenizer.encode("pick up the bowl") != tokenizer.encode("pick up the plate")
    assert len(tokenizer.encode("pick up the black bowl and place it on the plate")) < 45, "words, not letters"


def test_the_small_tokenizer_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_small_tokenizer(tmp_path / name)
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()


def test_the_length_that_a_training_batch_was_brought_to_does_not_count(
    tokenizer: PromptTokenizer, tmp_path: Path
) -> None:
    write_small_tokenizer(tmp_path)
    path = str(tmp_path / "tokenizer.json")
    of_training = Tokenizer.from_file(path)
    instruction = "pick up the bowl"
    for change in (partial(of_training.enable_truncation, 10), partial(of_training.enable_padding, length=64)):
        change()
        of_training.save(path)
        assert PromptTokenizer(tmp_path).encode(instruction) == tokenizer.encode(instruction)


@pytest.mark.parametrize("instruction", ["", "  \n"])
def test_an_empty_instruction_is_refused(tokenizer: PromptTokenizer, instruction: str) -> None:
    with pytest.raises(ConfigurationError, match="the instruction is empty"):
        tokenizer.encode(instruction)


def test_a_missing_or_broken_tokenizer_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer.json is missing; copy"):
        PromptTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not a tokenizer"):
        PromptTokenizer(tmp_path)
