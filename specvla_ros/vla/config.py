"""Sizes of an OpenVLA checkpoint, read from its config.json."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from specvla_ros.errors import CheckpointError

IMAGE_SIZE = 224
PATCH_SIZE = 14
PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2
ACTION_BINS = 256
LLAMA_2 = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
"""What the language model must be: another one's tensors may have the same names, and biases beside them."""


def _check_heads(part: str, width: int, heads: int) -> None:
    if width % heads:
        raise CheckpointError(f"{part}: width {width} is not a multiple of its {heads} attention heads")


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """One vision transformer: `width` features, `depth` blocks, `heads` attention heads."""

    width: int
    depth: int
    heads: int
    mlp_width: int
    prefix_tokens: int
    """Class and register tokens ahead of the patches (5 in DINOv2 with registers, 0 in SigLIP)."""
    layer_scale: bool
    """Whether each block's two changes are multiplied with learned gains before they are added (DINOv2's are)."""

    def __post_init__(self) -> None:
        _check_heads("vision tower", self.width, self.heads)

    def resized(self, *, width: int, depth: int, heads: int) -> VisionConfig:
        """The same kind of tower in another size; the MLP keeps its ratio to the width.

        Raises:
            CheckpointError: the width is no multiple of the heads.
        """
        mlp_width = int(width * self.mlp_width / self.width)
        return dataclasses.replace(self, width=width, depth=depth, heads=heads, mlp_width=mlp_width)


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """A Llama-2 decoder; the defaults are Llama-2 7B's, which a released config.json leaves out."""

    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    vocab_size: int = 32064
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_position_embeddings: int = 2048

    def __post_init__(self) -> None:
        _check_heads("language model", self.hidden_size, self.num_attention_heads)

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], where: str) -> LlamaConfig:
        """Read the fields that are written; take every other from Llama-2 7B.

        Raises:
            CheckpointError: no number, or something that Llama-2 has not: grouped keys, biases, scaled RoPE.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        heads = fields.get("num_attention_heads", defaults["num_attention_heads"])
        if (fields.get("num_key_value_heads") or heads) != heads:  # null: as many
            raise CheckpointError(
                f"{where}: num_key_value_heads is {fields['num_key_value_heads']} but num_attention_heads is {heads}; "
                "OpenVLA's Llama-2 has one key per query head"
            )
        for name, value in LLAMA_2.items():
            if (fields.get(name) or value) != value:
                raise CheckpointError(f"{where}: {name} is {fields[name]!r}; OpenVLA's Llama-2 has {value!r}")
        # transformers 5 writes rope_parameters, with rope_theta in it; versions before it rope_scaling.
        rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
        if not isinstance(rope, Mapping) or rope.get("rope_type", rope.get("type", "default")) != "default":
            raise CheckpointError(f"{where}: RoPE is {rope}; OpenVLA's Llama-2 has it unscaled")
        fields = {**fields, **rope}
        known = {name: fields[name] for name in defaults if name in fields}
        for name, value in known.items():
            is_size = isinstance(defaults[name], int)
            kind, expected = (int, "whole number above 0") if is_size else ((int, float), "number above 0")
            if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < math.inf:
                raise CheckpointError(f"{where}: {name} is {value!r}; expected a {expected}")
        return cls(**known)

    def require_positions(self, count: int, where: str) -> None:
        """Refuse what RoPE has no angles for: a GPU would read behind them and be lost to the process.

        Raises:
            CheckpointError: there are fewer positions than `count`.
        """
        if self.max_position_embeddings < count:
            raise CheckpointError(
                f"{where}: max_position_embeddings is {self.max_position_embeddings}; expected at least {count}, which "
                "image, instruction and action may take"
            )


DINOV2_LARGE = VisionConfig(width=1024, depth=24, heads=16, mlp_width=4096, prefix_tokens=5, layer_scale=True)
SIGLIP_SO400M = VisionConfig(width=1152, depth=27, heads=16, mlp_width=4304, prefix_tokens=0, layer_scale=False)


@dataclass(frozen=True, slots=True)
class OpenVLAConfig:
    """The three parts of an OpenVLA model and its action vocabulary.

    The defaults are the released 7B model's.
    """

    dinov2: VisionConfig = DINOV2_LARGE
    siglip: VisionConfig = SIGLIP_SO400M
    llama: LlamaConfig = LlamaConfig()
    padded_ids: int = 64
    """Rows of the vocabulary behind the last real id (config.json: pad_to_multiple_of)."""

    @property
    def vocabulary_size(self) -> int:
        """Real ids; the last 256 of them are the action tokens."""
        return self.llama.vocab_size - self.padded_ids

    @property
    def first_action_id(self) -> int:
        """Smallest action token id; it stands for the highest value."""
        return self.vocabulary_size - ACTION_BINS

    @property
    def action_ids(self) -> range:
        """The ids of the 256 action tokens."""
        return range(self.first_action_id, self.vocabulary_size)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], where: str = "config.json") -> OpenVLAConfig:
        """Read a config.json in OpenVLA's layout.

        `tiny_vision_overrides` (depth, embed_dim, num_heads for each tower) is the one field that released
        checkpoints do not have; small models of the same layout carry it.

        Raises:
            CheckpointError: not an OpenVLA configuration, or one with other vision towers or another way to resize.
        """
        if config.get("model_type") != "openvla" or not isinstance(config.get("text_config"), Mapping):
            raise CheckpointError(
                f"{where}: model_type is {config.get('model_type')!r}; expected 'openvla' with a text_config"
            )
        backbone = config.get("vision_backbone_id", "dinosiglip-vit-so-224px")
        if backbone != "dinosiglip-vit-so-224px":
            raise CheckpointError(
                f"{where}: vision_backbone_id is {backbone!r}; only 'dinosiglip-vit-so-224px' is supported"
            )
        resize = config.get("image_resize_strategy", "resize-naive")
        if resize != "resize-naive":
            raise CheckpointError(
                f"{where}: image_resize_strategy is {resize!r}; only 'resize-naive', OpenVLA's own, is supported"
            )
        if config.get("n_action_bins", ACTION_BINS) != ACTION_BINS:
            raise CheckpointError(f"{where}: n_action_bins is {config['n_action_bins']}; expected {ACTION_BINS}")
        dinov2, siglip = DINOV2_LARGE, SIGLIP_SO400M
        if overrides := config.get("tiny_vision_overrides"):
            dinov2, siglip = _override(dinov2, overrides[0]), _override(siglip, overrides[1])
        llama = LlamaConfig.from_dict(config["text_config"], f"{where}: text_config")
        padded_ids = config.get("pad_to_multiple_of", 64)
        if type(padded_ids) is not int or not 0 <= padded_ids <= llama.vocab_size - ACTION_BINS:
            raise CheckpointError(
                f"{where}: pad_to_multiple_of is {padded_ids!r}; expected a whole number that leaves {ACTION_BINS} "
                f"action tokens in a vocabulary of {llama.vocab_size}; OpenVLA's is 64"
            )
        return cls(dinov2=dinov2, siglip=siglip, llama=llama, padded_ids=padded_ids)

    def to_dict(self) -> dict[str, Any]:
        """The config.json of a model of these sizes; `from_dict` reads it back."""
        return {
            "architectures": ["OpenVLAForActionPrediction"],
            "model_type": "openvla",
            "vision_backbone_id": "dinosiglip-vit-so-224px",
            "image_sizes": [IMAGE_SIZE, IMAGE_SIZE],
            "n_action_bins": ACTION_BINS,
            "pad_to_multiple_of": self.padded_ids,
            "text_config": {
                "model_type": "llama",
                **dataclasses.asdict(self.llama),
            },
            "tiny_vision_overrides": [
                {"depth": tower.depth, "embed_dim": tower.width, "num_heads": tower.heads}
                for tower in (self.dinov2, self.siglip)
            ],
        }


def _override(tower: VisionConfig, fields: Mapping[str, int]) -> VisionConfig:
    """The tower as an entry of `tiny_vision_overrides` has it."""
    return tower.resized(width=fields["embed_dim"], depth=fields["depth"], heads=fields["num_heads"])
