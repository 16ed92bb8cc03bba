"""The training forward against inference: the same weights give the same logits."""

from __future__ import annotations

import pytest
import torch
from models import random_inputs, random_target

from specvla_ros.training.batched import PromptTable, teacher_forced


@pytest.mark.parametrize("seed", range(3))
def test_the_batched_forward_equals_prefill_and_steps(seed: int) -> None:
    target = random_target(seed, layers=1 + seed)
    inputs = [random_inputs(10 * seed + number, length) for number, length in enumerate((6, 9, 4))]
    table = PromptTable.from_ids([tuple(ids.tolist()) for ids, _ in inputs])
    first = target.config.first_action_id
    actions = first + torch.randint(256, (3, 7), generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        output = teacher_forced(target, torch.cat([pixels for _, pixels in inputs]), table.ids, table.lengths, actions)
        for row, (ids, pixels) in enumerate(inputs):
            patches = target.project_image(pixels)
            embeddings = target.embed_prompt(ids, patches)
            cache = target.new_cache(len(embeddings) + 6)
            features = target(embeddings, torch.arange(len(embeddings)), cache)[-1:]
            assert torch.allclose(output.patches[row], patches, atol=1e-9)
            assert torch.allclose(output.prompt_feature[row], features[0], atol=1e-9)
            logits = [target.action_logits(features)]
            cache.commit(len(embeddings))
            for token in actions[row, :-1]:
                step = target(target.embed_tokens(token[None]), torch.tensor([cache.length]), cache)
                cache.commit(1)
                logits.append(target.action_logits(step))
            assert float((output.logits[row] - torch.cat(logits)).abs().max()) <= 1e-5


def test_every_weight_but_unread_ones_learns() -> None:
    target = random_target(0)
    ids, pixels = random_inputs(0)
    actions = torch.full((1, 7), target.config.first_action_id + 3)
    output = teacher_forced(target, pixels, ids[None], torch.tensor([len(ids)]), actions)
    output.logits.logsumexp(dim=-1).sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in target.parameters())
