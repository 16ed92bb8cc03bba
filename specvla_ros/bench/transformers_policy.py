"""Plain greedy decoding through transformers' own Llama: what a user would have without this package."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specvla_ros.errors import ConfigurationError
from specvla_ros.policy import ACTION_LENGTH, Action, DecodeStats
from specvla_ros.runtime import OpenVLAPolicy
from specvla_ros.speculative.stopwatch import Stopwatch
from specvla_ros.vla.model import OpenVLA


def transformers_llama(target: OpenVLA) -> Any:
    """LlamaForCausalLM over the target's own weights, which are shared and not copied.

    Raises:
        ConfigurationError: transformers is not installed.
    """
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    except ImportError as error:
        raise ConfigurationError(f"transformers cannot be imported ({error}): pip install transformers") from error
    fields = asdict(target.config.llama)
    config = LlamaConfig(**fields, tie_word_embeddings=False, attention_bias=False)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict(target.language_model.state_dict(), assign=True)
    # Its tables are in no checkpoint, so on the meta device they are empty.
    model.model.rotary_emb = LlamaRotaryEmbedding(config=config).to(target.device)
    return model.eval().requires_grad_(False)


class TransformersPolicy:
    """Vision, projector and prompt are ours and the same; the language model is transformers', run eagerly.

    Its loop is the bare one: forward and argmax over the whole vocabulary, the cache that transformers makes by
    default, and the head at the prompt's end only. `generate` does the same with more around it.
    """

    def __init__(self, policy: OpenVLAPolicy) -> None:
        self.thresholds = policy.thresholds
        self._policy = policy
        self._target = policy.decoder.target
        self._llama = transformers_llama(self._target)

    @torch.inference_mode()
    def act(self, image: NDArray[np.uint8], instruction: str) -> Action:
        """See `specvla_ros.policy.Policy`."""
        stopwatch = Stopwatch(self._target.device)
        with stopwatch.phase("prepare"):
            input_ids, pixel_values = self._policy.prepare(image, instruction)
        with stopwatch.phase("vision"):
            patches = self._target.project_image(pixel_values)
        with stopwatch.phase("prefill"):
            embeddings = self._target.embed_prompt(input_ids.to(self._target.device), patches)
            token, cache = self._next_token(inputs_embeds=embeddings[None])
        tokens = [token]
        while len(tokens) < ACTION_LENGTH:
            with stopwatch.phase("verify"):
                last = torch.tensor([tokens[-1:]], device=self._target.device)
                token, cache = self._next_token(input_ids=last, past_key_values=cache)
            tokens.append(token)
        stats = DecodeStats(
            accepted=(0,) * (ACTION_LENGTH - 1),
            forwards=ACTION_LENGTH,
            deviations=(0,) * ACTION_LENGTH,
            milliseconds=stopwatch.milliseconds(),
        )
        return self._policy.action(tokens, stats)

    def reset(self) -> None:
        """Nothing is kept between actions."""

    def _next_token(self, **inputs: Tensor) -> tuple[int, Tensor]:
        outputs = self._llama.model(**inputs, use_cache=True)
        logits = self._llama.lm_head(outputs.last_hidden_state[:, -1])
        return int(logits.argmax()), outputs.past_key_values
