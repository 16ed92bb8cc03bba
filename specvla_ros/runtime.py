"""The real policy: OpenVLA behind the protocol of `specvla_ros.policy`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specvla_ros.errors import ConfigurationError
from specvla_ros.gpu_memory import shortage
from specvla_ros.policy import PLAIN, Action, DecodeStats, Thresholds, expand_thresholds
from specvla_ros.shipped import checkpoint_directory
from specvla_ros.speculative.build import build_drafter
from specvla_ros.speculative.decode import SpeculativeDecoder
from specvla_ros.speculative.drafter import Drafter, History
from specvla_ros.speculative.eagle import TreeConfig
from specvla_ros.speculative.stopwatch import Stopwatch
from specvla_ros.system_memory import available_memory
from specvla_ros.vla.actions import ActionTokenizer, NormStats, select_norm_stats
from specvla_ros.vla.checkpoint import Shapes, load_tensors, read_config, read_norm_stats, require_action_tokens
from specvla_ros.vla.config import OpenVLAConfig
from specvla_ros.vla.fingerprint import require_sha256
from specvla_ros.vla.graphs import Eager, Graphs
from specvla_ros.vla.image_ahead import ImageAhead
from specvla_ros.vla.images import prepare_image, processor_pixels, select_preparation
from specvla_ros.vla.llama import lay_out_projections
from specvla_ros.vla.model import OpenVLA
from specvla_ros.vla.prompt import PromptTokenizer
from specvla_ros.vla.quantised import KINDS, require_float8_products

WEIGHTS = ("full", *KINDS)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Advance = Callable[[int, int], None]
"""Told how many steps of how many are done."""
CAPACITY = 512
"""Longest prefix in positions: 256 patches, seven action tokens and 249 of prompt; a LIBERO prompt has about 21."""


class OpenVLAPolicy:
    """An image and an instruction in, an action with its statistics out.

    Args:
        directory: of the checkpoint, which may bring a draft.
        decoder: the model and the loop around it.
        tokenizer: of the prompt; None when the checkpoint has none, and then only `decode` works.
        norm_stats: how normalised values become the checkpoint's units.
        preparation: what is done to a camera image before the processor, see `prepare_image`; may be read.
        thresholds: see `specvla_ros.policy.Policy`.
        graphs: whether other drafts on these weights record CUDA graphs.
    """

    def __init__(
        self,
        directory: Path,
        decoder: SpeculativeDecoder,
        tokenizer: PromptTokenizer | None,
        norm_stats: NormStats,
        preparation: str,
        thresholds: Thresholds,
        *,
        graphs: bool = False,
    ) -> None:
        self.thresholds = thresholds
        self.decoder = decoder
        self._graphs = graphs
        # Not by a method of this policy: the two would hold each other, and the model, until Python looks for circles.
        self._pixels = partial(pixels, preparation=preparation)
        self._ahead = ImageAhead(self._pixels) if decoder.target.device.type == "cuda" else None
        self._directory = directory
        self._tokenizer = tokenizer
        self._actions = ActionTokenizer(decoder.target.config.vocabulary_size)
        self._norm_stats = norm_stats
        self._history = History()
        self.preparation = preparation

    def act(self, image: NDArray[np.uint8], instruction: str) -> Action:
        """Decode one action from an (H, W, 3) uint8 RGB image; see `specvla_ros.policy.Policy`."""
        with current(self.decoder.target.device):
            stopwatch = Stopwatch(self.decoder.target.device)
            with stopwatch.phase("prepare"):
                input_ids, pixel_values = self.prepare(image, instruction)
            return self._decode(input_ids, pixel_values, stopwatch)

    def prepare(self, image: NDArray[np.uint8], instruction: str) -> tuple[Tensor, Tensor]:
        """What the model reads: (n,) prompt ids, BOS first, and (1, 6, 224, 224) pixels.

        Raises:
            ConfigurationError: the checkpoint has no tokenizer.
        """
        if self._tokenizer is None:
            raise ConfigurationError(
                "this checkpoint has no tokenizer.json; copy its base model's file beside config.json"
            )
        input_ids = torch.tensor(self._tokenizer.encode(instruction))
        return input_ids, self._ahead.take(image) if self._ahead else self._pixels(image)

    @property
    def looks_ahead(self) -> bool:
        """On a CPU nothing is gained by it."""
        return self._ahead is not None

    def look(self, image: NDArray[np.uint8]) -> None:
        """Prepare an image that `act` may be asked about next, while a GPU decodes another.

        See `specvla_ros.policy.LooksAhead`.
        """
        if self._ahead:
            self._ahead.look(image)

    def decode(self, input_ids: Tensor, pixel_values: Tensor) -> Action:
        """The same below the tokenizer and the image preparation: (n,) ids, BOS first, and (1, 6, 224, 224) pixels."""
        with current(self.decoder.target.device):
            return self._decode(input_ids, pixel_values, Stopwatch(self.decoder.target.device))

    def reset(self) -> None:
        """A new episode begins: drafts know nothing of the last actions."""
        self._history.clear()
        self.decoder.drafter.clear()

    def with_draft(
        self, draft: str, thresholds: Thresholds, tree: TreeConfig | None = None, sha256: str = ""
    ) -> OpenVLAPolicy:
        """Another policy on the same weights with the draft of that name.

        Args:
            draft, tree, sha256: as `draft`, `tree` and `draft_sha256` in `load_policy`.

        Raises:
            CheckpointError, ConfigurationError: there is no such draft, or it does not fit target or memory.
        """
        with _loading_to(self.decoder.target.device):
            drafter = build_drafter(draft, self.decoder.target, CAPACITY, tree or TreeConfig(), self._directory, sha256)
            return self.with_drafter(drafter, thresholds)

    def with_drafter(self, drafter: Drafter, thresholds: Thresholds) -> OpenVLAPolicy:
        """Another policy on the same weights, with a draft and a cache of its own."""
        return self.with_decoder(new_decoder(self.decoder.target, drafter, graphs=self._graphs), thresholds)

    def with_decoder(self, decoder: SpeculativeDecoder, thresholds: Thresholds) -> OpenVLAPolicy:
        """Another policy that reads and acts alike, with a history of its own.

        Args:
            decoder: may be another policy's too: what they have in common needs no more memory. One of them acts at a
                time.
        """
        return OpenVLAPolicy(
            self._directory,
            decoder,
            self._tokenizer,
            self._norm_stats,
            self.preparation,
            thresholds,
            graphs=self._graphs,
        )

    def _decode(self, input_ids: Tensor, pixel_values: Tensor, stopwatch: Stopwatch) -> Action:
        return self.action(*self.decoder.decode(input_ids, pixel_values, self.thresholds, self._history, stopwatch))

    def action(self, tokens: list[int], stats: DecodeStats) -> Action:
        """What seven action tokens mean in the checkpoint's units."""
        values = self._norm_stats.unnormalise(self._actions.decode(tokens))
        return Action(values=values, tokens=tuple(tokens), stats=stats)


def load_policy(
    checkpoint: str | Path | None = None,
    draft: str = PLAIN,
    threshold: int | Sequence[int] = 0,
    device: str = "auto",
    dtype: str = "auto",
    unnorm_key: str | None = None,
    *,
    preparation: str = "auto",
    sha256: str = "",
    draft_sha256: str = "",
    tree: TreeConfig | None = None,
    weights: str = "full",
    graphs: bool = True,
    advance: Advance | None = None,
) -> OpenVLAPolicy:
    """Load a checkpoint in OpenVLA's layout and a draft.

    Args:
        checkpoint: directory, or hub name, with @revision to pin it; None is the small model of the package.
        draft: "none", "hold", "linear", "eagle" (the draft in the checkpoint's own `draft` folder), a Spec-VLA draft's
            directory or hub name, or several joined by "+".
        threshold: acceptance distance in bins for the six motion dimensions (the gripper stays exact), or seven of
            them. 0 is greedy decoding.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1".
        dtype: "auto" (bfloat16 on a GPU, float32 on a CPU), "float32", "bfloat16" or "float16".
        unnorm_key: which norm_stats to use; may be left out when the checkpoint has only one.
        preparation: what is done to a camera image first: "libero" as OpenVLA's LIBERO evaluation does, "centre_crop",
            the same for an upright camera, "none", or "auto": "libero" when the norm_stats key starts with it, else
            "none".
        sha256: of the checkpoint's weights, see `weights_sha256`; not checked when empty.
        draft_sha256: of a learned draft's weights, likewise.
        tree: the tree of a learned draft; 50 nodes, depth 4, top-8 when None.
        weights: "full", or of the language model's layers in 8 bits, "float8" or "int8" (`specvla_ros.vla.quantised`):
            half the memory, and other tokens now and then.
        graphs: on a GPU, record CUDA graphs of everything that an action can need: seconds once, and no launches
            to wait for afterwards.
        advance: told how many recordings of how many are done.

    Raises:
        CheckpointError: the checkpoint or the draft cannot be used; the message says why and what to do.
        ConfigurationError: an argument does not exist or does not fit, or there is too little memory.
    """
    thresholds = expand_thresholds(threshold)
    torch_device = select_device(device)
    directory = checkpoint_directory(checkpoint)
    if sha256:
        require_sha256(directory, sha256)
    key, norm_stats = select_norm_stats(read_norm_stats(directory), unnorm_key, directory)
    preparation = select_preparation(preparation, key)
    tokenizer = PromptTokenizer(directory) if (directory / "tokenizer.json").is_file() else None
    graphs = graphs and torch_device.type == "cuda"
    with _loading_to(torch_device):
        target = load_target(directory, select_dtype(dtype, torch_device), torch_device, weights)
        if tokenizer:
            tokenizer.require_rows(target.config.llama.vocab_size)
        drafter = build_drafter(draft, target, CAPACITY, tree or TreeConfig(), directory, draft_sha256)
        decoder = new_decoder(target, drafter, graphs=graphs, advance=advance)
    return OpenVLAPolicy(directory, decoder, tokenizer, norm_stats, preparation, thresholds, graphs=graphs)


class SharedModel:
    """Policies on the same weights, and those with the same draft around one decoder: many take the memory of one.

    One of them acts at a time.

    Args:
        first: brings the weights.
        draft: its own.
    """

    def __init__(self, first: OpenVLAPolicy, draft: str) -> None:
        self._first = first
        self._decoders = {draft: first.decoder}

    def policy(self, draft: str, thresholds: Thresholds) -> OpenVLAPolicy:
        """One more, with a history of its own.

        Raises:
            CheckpointError, ConfigurationError: see `OpenVLAPolicy.with_draft`.
        """
        if draft not in self._decoders:
            self._decoders[draft] = self._first.with_draft(draft, thresholds).decoder
        return self._first.with_decoder(self._decoders[draft], thresholds)


def pixels(image: NDArray[np.uint8], preparation: str) -> Tensor:
    """(1, 6, 224, 224) of an (H, W, 3) uint8 RGB image."""
    return processor_pixels(prepare_image(image, preparation))


def current(device: torch.device) -> AbstractContextManager[object]:
    """Streams, events and kernels belong to a thread's current GPU, which is the first one unless told otherwise."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def _loading_to(device: torch.device) -> Iterator[None]:
    """`current`, and a GPU with too little memory is a thing to act on."""
    try:
        with current(device):
            yield
    except torch.cuda.OutOfMemoryError as error:
        raise ConfigurationError(
            f"{device} has too little memory: end what else uses it, or take weights int8 or float8, a smaller model, "
            f"or device cpu ({shortage(error)})"
        ) from error


def new_decoder(
    target: OpenVLA, drafter: Drafter, *, graphs: bool, advance: Advance | None = None
) -> SpeculativeDecoder:
    """A decoder of a policy's size, its graphs recorded where it shall have any."""
    runner = Graphs() if graphs else Eager()
    return recorded(SpeculativeDecoder(target, drafter, capacity=CAPACITY, runner=runner), advance)


def recorded(decoder: SpeculativeDecoder, advance: Advance | None = None) -> SpeculativeDecoder:
    """The decoder with its graphs recorded, if it has any."""
    if isinstance(decoder.runner, Graphs):
        decoder.record(decoder.runner, advance or (lambda done, of: None))
    return decoder


def load_target(directory: Path, dtype: torch.dtype, device: torch.device, weights: str = "full") -> OpenVLA:
    """Read the network of a checkpoint directory; tensors that OpenVLA never uses are left on the disk.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        ConfigurationError: there are no such weights, or not on this device, or the machine has too little memory.
    """
    if weights not in WEIGHTS:
        raise ConfigurationError(f"weights {weights!r} are none; expected {' or '.join(WEIGHTS)}")
    if weights == "float8":
        require_float8_products(device, dtype)
    require_action_tokens(directory)
    config = OpenVLAConfig.from_dict(read_config(directory), str(directory / "config.json"))
    with torch.device("meta"):
        target = OpenVLA(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in target.state_dict().items()}
    rounds = weights in KINDS  # piece by piece, and the pieces stay in their file until then
    read_to = torch.device("cpu") if rounds else device
    if read_to.type == "cpu" and not rounds:
        _require_memory(shapes, dtype)
    target.load_state_dict(load_tensors(directory, shapes, dtype=dtype, device=read_to, mapped=rounds), assign=True)
    target = target.to(read_to, dtype).eval().requires_grad_(False)
    return lay_out_projections(target, device, weights)


def _require_memory(shapes: Shapes, dtype: torch.dtype) -> None:
    """Refuse what the system would end without a word once its memory is used up."""
    needed, free = dtype.itemsize * sum(map(math.prod, shapes.values())), available_memory()
    if needed > free:
        smaller = ", or take dtype bfloat16, which needs half" if dtype.itemsize > torch.bfloat16.itemsize else ""
        raise ConfigurationError(
            f"the weights take {needed / 1e9:.1f} GB in {str(dtype).removeprefix('torch.')}, and this machine has "
            f"{free / 1e9:.1f} GB of memory free: end what else uses it{smaller}"
        )


def select_device(name: str) -> torch.device:
    """The device called auto, cpu, cuda or cuda:N.

    Raises:
        ConfigurationError: it does not exist.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"device {name!r} is not one; expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigurationError(f"device {name!r} is not one; expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            f"device {name!r}: this torch sees no GPU; install a CUDA build of torch, or use device cpu"
        )
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ConfigurationError(f"device {name!r} does not exist; the last GPU here is cuda:{count - 1}")
    return device


def select_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type called auto, which depends on the device, or one of DTYPES.

    Raises:
        ConfigurationError: it is another.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise ConfigurationError(f"dtype {name!r} is not one; expected auto, {', '.join(DTYPES)}")
    return DTYPES[name]
