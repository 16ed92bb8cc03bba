from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import reference
import torch
from reference import CASES, needs_reference
from torch import Tensor

from specvla_ros.runtime import load_target
from specvla_ros.vla.config import OpenVLAConfig
from specvla_ros.vla.model import OpenVLA

EMPTY_TOKEN = 29871
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def target() -> OpenVLA:
    return load_target(reference.ROOT / "openvla_tiny", torch.float32, torch.device("cpu"))


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return reference.values("openvla_tiny")


def close(ours: Tensor, theirs: np.ndarray) -> bool:
    return ours.shape == theirs.shape and float((ours - torch.from_numpy(theirs)).abs().max()) <= TOLERANCE


@needs_reference
@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_every_stage_equals_the_public_implementation(
    target: OpenVLA, arrays: dict[str, np.ndarray], case: str
) -> None:
    pixels = torch.from_numpy(arrays[f"{case}/pixel_values"])
    dinov2_pixels, siglip_pixels = pixels.split(3, dim=1)
    assert close(target.vision_backbone.featurizer(dinov2_pixels), arrays[f"{case}/dino_patches"])
    assert close(target.vision_backbone.fused_featurizer(siglip_pixels), arrays[f"{case}/siglip_patches"])
    patches = target.project_image(pixels)
    assert close(patches[None], arrays[f"{case}/projected"])
    ids = torch.tensor([*arrays[f"{case}/input_ids"][0], EMPTY_TOKEN])
    embeddings = target.embed_prompt(ids, patches)
    assert close(embeddings[None], arrays[f"{case}/prefill_embeds"])
    features = target(embeddings, torch.arange(len(embeddings)), target.new_cache(len(embeddings)))
    assert close(features[None], arrays[f"{case}/prefill_hidden_last_layer"])
    logits = target.logits(features)
    assert close(logits[-1:], arrays[f"{case}/prefill_logits_last"])
    assert logits.argmax(dim=1).tolist() == arrays[f"{case}/prefill_argmax_all"][0].tolist()


@needs_reference
@torch.inference_mode()
def test_the_cache_gives_what_one_long_forward_gives(target: OpenVLA, arrays: dict[str, np.ndarray]) -> None:
    embeddings = torch.from_numpy(arrays["a/prefill_embeds"])[0]
    whole = target(embeddings, torch.arange(len(embeddings)), target.new_cache(300))
    cache = target.new_cache(300)
    target(embeddings[:270], torch.arange(270), cache)
    cache.commit(270)
    for position in range(270, len(embeddings)):
        step = target(embeddings[position : position + 1], torch.tensor([position]), cache)
        cache.commit(1)
        assert float((step[0] - whole[position]).abs().max()) <= TOLERANCE


def released_tensor_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of the released 7B checkpoint, written down from its published layout."""
    language, width, mlp = "language_model.model", 4096, 11008
    yield f"{language}.embed_tokens.weight", (32064, width)
    yield "language_model.lm_head.weight", (32064, width)
    yield f"{language}.norm.weight", (width,)
    for layer in range(32):
        prefix = f"{language}.layers.{layer}"
        for name in "qkvo":
            yield f"{prefix}.self_attn.{name}_proj.weight", (width, width)
        yield f"{prefix}.mlp.gate_proj.weight", (mlp, width)
        yield f"{prefix}.mlp.up_proj.weight", (mlp, width)
        yield f"{prefix}.mlp.down_proj.weight", (width, mlp)
        yield f"{prefix}.input_layernorm.weight", (width,)
        yield f"{prefix}.post_attention_layernorm.weight", (width,)
    towers = (("featurizer", 1024, 24, 4096), ("fused_featurizer", 1152, 27, 4304))
    for tower, width, depth, mlp in towers:
        prefix = f"vision_backbone.{tower}"
        yield f"{prefix}.pos_embed", (1, 256, width)
        yield f"{prefix}.patch_embed.proj.weight", (width, 3, 14, 14)
        yield f"{prefix}.patch_embed.proj.bias", (width,)
        for block in range(depth):
            yield from linear(f"{prefix}.blocks.{block}.attn.qkv", 3 * width, width)
            yield from linear(f"{prefix}.blocks.{block}.attn.proj", width, width)
            yield from linear(f"{prefix}.blocks.{block}.mlp.fc1", mlp, width)
            yield from linear(f"{prefix}.blocks.{block}.mlp.fc2", width, mlp)
            for norm in ("norm1", "norm2"):
                yield from norm_pair(f"{prefix}.blocks.{block}.{norm}", width)
            if tower == "featurizer":
                yield f"{prefix}.blocks.{block}.ls1.scale_factor", (width,)
                yield f"{prefix}.blocks.{block}.ls2.scale_factor", (width,)
        yield from norm_pair(f"{prefix}.norm", width)
    yield "vision_backbone.featurizer.cls_token", (1, 1, 1024)
    yield "vision_backbone.featurizer.reg_token", (1, 4, 1024)
    pool = "vision_backbone.fused_featurizer.attn_pool"
    yield f"{pool}.latent", (1, 1, 1152)
    yield from linear(f"{pool}.q", 1152, 1152)
    yield from linear(f"{pool}.kv", 2304, 1152)
    yield from linear(f"{pool}.proj", 1152, 1152)
    yield from norm_pair(f"{pool}.norm", 1152)
    yield from linear(f"{pool}.mlp.fc1", 4304, 1152)
    yield from linear(f"{pool}.mlp.fc2", 1152, 4304)
    yield from linear("projector.fc1", 8704, 2176)
    yield from linear("projector.fc2", 4096, 8704)
    yield from linear("projector.fc3", 4096, 4096)


def linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)


def norm_pair(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def test_the_full_size_model_has_the_released_checkpoints_names_and_shapes() -> None:
    released = dict(released_tensor_shapes())
    assert len(released) == 982
    with torch.device("meta"):
        model = OpenVLA(OpenVLAConfig())
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert all(tensor.device.type == "meta" for tensor in model.parameters())
    assert {name: released[name] for name in ours if name in released} == ours
    unread = (
        "vision_backbone.featurizer.blocks.23.",
        "backbone.featurizer.norm.",
        "blocks.26.",
        "fused_featurizer.norm.",
        "attn_pool.",
    )
    left_out = set(released) - set(ours)
    assert left_out and all(any(part in name for part in unread) for name in left_out)
    assert not any(any(part in name for part in unread) and "language_model" not in name for name in ours)


@needs_reference
def test_the_reference_checkpoint_has_the_same_layout() -> None:
    listed = {line.split("\t")[0] for line in (reference.ROOT / "openvla_tiny/state_dict_keys.txt").open()}
    kinds = {"".join("#" if c.isdigit() else c for c in name) for name in listed}
    released_kinds = {"".join("#" if c.isdigit() else c for c in name) for name, _ in released_tensor_shapes()}
    # Two-digit block numbers become "##" in the large model only.
    assert kinds == {name.replace("##", "#") for name in released_kinds}
