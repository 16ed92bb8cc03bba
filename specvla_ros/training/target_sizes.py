"""How large a small target is."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from specvla_ros.errors import ConfigurationError
from specvla_ros.vla.config import DINOV2_LARGE, SIGLIP_SO400M, LlamaConfig, OpenVLAConfig, VisionConfig

HEAD_SIZE, VISION_HEAD_SIZE = 32, 64
"""Of the language model's attention and the towers'; the widths are multiples of them. Few heads cost less on a CPU."""


@dataclass(frozen=True, slots=True)
class TargetSizes:
    """Widths and depths; the depth of a tower counts its last block, which OpenVLA's layout has but never runs.

    DINOv2's tower does the seeing. SigLIP's, which cannot be left out of the layout, is kept small. The defaults are
    the sizes of the model that comes with the package.
    """

    vision_width: int = 128
    vision_depth: int = 4
    hidden_size: int = 128
    layers: int = 3
    siglip_width: int = 64
    siglip_depth: int = 2

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ConfigurationError(f"{name} is {value}; expected at least 1")
        if self.config().llama.head_size % 2:  # RoPE turns pairs
            raise ConfigurationError(f"hidden_size is {self.hidden_size}; expected a multiple of {HEAD_SIZE}")

    def config(self) -> OpenVLAConfig:
        """The model's configuration.

        Raises:
            CheckpointError: a width is no multiple of its heads.
        """
        hidden = self.hidden_size
        return OpenVLAConfig(
            dinov2=_tower(DINOV2_LARGE, self.vision_width, self.vision_depth),
            siglip=_tower(SIGLIP_SO400M, self.siglip_width, self.siglip_depth),
            llama=LlamaConfig(
                hidden_size=hidden,
                intermediate_size=hidden * 11 // 4,  # Llama-2's ratio, 11008 / 4096
                num_hidden_layers=self.layers,
                num_attention_heads=max(hidden // HEAD_SIZE, 1),
                max_position_embeddings=512,
            ),
        )


def _tower(released: VisionConfig, width: int, depth: int) -> VisionConfig:
    """The released tower in another size, with heads of `VISION_HEAD_SIZE`."""
    return released.resized(width=width, depth=depth, heads=max(width // VISION_HEAD_SIZE, 1))
