"""OpenVLA: an image and a prompt in, features and logits out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from specvla_ros.vla.cache import KeyValueCache
from specvla_ros.vla.config import ACTION_BINS, OpenVLAConfig
from specvla_ros.vla.llama import LanguageModel
from specvla_ros.vla.vision import Projector, VisionBackbone


class OpenVLA(nn.Module):
    """The network of OpenVLA (arXiv 2406.09246); its state dict is the public checkpoint's, less what is never read."""

    def __init__(self, config: OpenVLAConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_backbone = VisionBackbone(config.dinov2, config.siglip)
        self.projector = Projector(config.dinov2.width + config.siglip.width, config.llama.hidden_size)
        self.language_model = LanguageModel(config.llama)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.language_model.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' type."""
        return self.language_model.lm_head.weight.dtype

    def new_cache(self, capacity: int) -> KeyValueCache:
        """An empty cache for `capacity` positions."""
        llama = self.config.llama
        return KeyValueCache(
            llama.num_hidden_layers,
            llama.num_attention_heads,
            capacity,
            llama.head_size,
            dtype=self.dtype,
            device=self.device,
        )

    def project_image(self, pixel_values: Tensor) -> Tensor:
        """(1, 6, 224, 224) pixels to (256, hidden) patch embeddings."""
        return self.projector(self.vision_backbone(pixel_values.to(self.device, self.dtype)))[0]

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """(n,) token ids to (n, hidden) embeddings."""
        return self.language_model.model.embed_tokens(ids)

    def embed_prompt(self, input_ids: Tensor, patches: Tensor) -> Tensor:
        """The input sequence: BOS, the 256 patches, the rest of the text; (n + 256, hidden)."""
        text = self.embed_tokens(input_ids)
        return torch.cat([text[:1], patches, text[1:]])

    def forward(
        self, embeddings: Tensor, positions: Tensor, cache: KeyValueCache, mask: Tensor | None = None
    ) -> Tensor:
        """The language model over new positions; see `LlamaModel.forward`."""
        return self.language_model.model(embeddings, positions, cache, mask)

    def logits(self, features: Tensor) -> Tensor:
        """(n, hidden) features to (n, 32064) logits over the whole vocabulary."""
        return self.language_model.lm_head(features)

    def action_logits(self, features: Tensor) -> Tensor:
        """(n, hidden) features to (n, 256) logits of the action tokens, in id order."""
        first = self.config.first_action_id
        return F.linear(features, self.language_model.lm_head.weight[first : first + ACTION_BINS])

    def predict_action_tokens(self, features: Tensor) -> Tensor:
        """(n,) ids of the most likely action token after each feature.

        Upstream takes the argmax over all 32064 ids and decodes whatever it finds; the two agree whenever that is an
        action token. `specvla bench` counts where it is none.
        """
        return self.action_logits(features).argmax(dim=-1) + self.config.first_action_id
