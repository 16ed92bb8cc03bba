"""The decode loop of Spec-VLA (arXiv 2507.22424): draft a tree, verify it in one forward, commit the accepted path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from specvla_ros.errors import ConfigurationError, DecodeError
from specvla_ros.policy import ACTION_LENGTH, DecodeStats, Thresholds
from specvla_ros.speculative.acceptance import deviations, longest_accepted_node
from specvla_ros.speculative.drafter import Drafter, Prefix
from specvla_ros.speculative.stopwatch import Stopwatch
from specvla_ros.speculative.tree import DraftTree
from specvla_ros.vla.cache import KeyValueCache
from specvla_ros.vla.config import PATCHES
from specvla_ros.vla.model import OpenVLA

MAX_TREE_NODES = 256
"""Room for a tree behind the prefix: a 50-node tree merged with any path fits several times."""


@dataclass(frozen=True, slots=True)
class Round:
    """One verification, for whoever wants to look at it.

    Attributes:
        tree: what was drafted, n nodes.
        answers: (n) the target's token after each node.
        distances: (n) bins from each node's token to the target's answer at its parent; 0 for the root.
        path: the accepted nodes, the root first. Their tokens are committed, and the answer at the last of them.
    """

    tree: DraftTree
    answers: list[int]
    distances: list[int]
    path: list[int]


class SpeculativeDecoder:
    """Decodes the seven tokens of an action.

    Args:
        target: the model whose answer counts.
        drafter: proposes; `NoDrafter` makes this plain greedy decoding.
        capacity: longest prefix: prompt, 256 patches and seven action tokens.

    Attributes:
        observer: called with every round, after it was committed.
    """

    def __init__(self, target: OpenVLA, drafter: Drafter, *, capacity: int = 512) -> None:
        self.target = target
        self.drafter = drafter
        self.observer: Callable[[Round], None] | None = None
        self._capacity = capacity
        self._cache: KeyValueCache = target.new_cache(capacity + MAX_TREE_NODES)
        self._prefix = Prefix(target, capacity)

    @torch.inference_mode()
    def decode(
        self, input_ids: Tensor, pixel_values: Tensor, thresholds: Thresholds, stopwatch: Stopwatch | None = None
    ) -> tuple[list[int], DecodeStats]:
        """One action.

        With all thresholds 0 the tokens are those of greedy decoding. Otherwise each token is at most its
        dimension's threshold away from the target's argmax given the tokens before it.

        Args:
            input_ids: (n,) prompt ids, BOS first.
            pixel_values: (1, 6, 224, 224).
            thresholds: bins, per dimension.
            stopwatch: goes on counting where the caller's work ended; by default the clock starts here.

        Returns:
            Seven action token ids and what they cost.

        Raises:
            ConfigurationError: the prompt does not fit the cache.
            DecodeError: the model's logits are not finite.
        """
        stopwatch = stopwatch or Stopwatch(self.target.device)
        self._require_room(input_ids)
        with stopwatch.phase("vision"):
            patches = self.target.project_image(pixel_values)
        return self.decode_patches(input_ids, patches, thresholds, stopwatch)

    @torch.inference_mode()
    def decode_patches(
        self, input_ids: Tensor, patches: Tensor, thresholds: Thresholds, stopwatch: Stopwatch | None = None
    ) -> tuple[list[int], DecodeStats]:
        """`decode` from the (256, hidden) projected patches of an image that was seen before."""
        stopwatch = stopwatch or Stopwatch(self.target.device)
        self._require_room(input_ids)
        prefix = self._prefix
        accepted_per_round: list[int] = []
        distances = [0]
        self._prefill(input_ids, patches, stopwatch)
        limits = torch.tensor((*thresholds, 0), device=self.target.device)
        while (left := ACTION_LENGTH - len(prefix.tokens)) > 0:
            with stopwatch.phase("draft"):
                # The verification itself brings one token, so a useful draft is one shorter than what is left.
                tree = self.drafter.draft(prefix, left - 1)
            with stopwatch.phase("verify"):
                path_distances = self._verify_and_commit(tree, limits[len(prefix.tokens) - 1 :])
            accepted_per_round.append(len(path_distances))
            distances += [*path_distances, 0]
        self.drafter.end_action(prefix.tokens)
        stats = DecodeStats(
            accepted=tuple(accepted_per_round),
            forwards=1 + len(accepted_per_round),
            deviations=tuple(distances),
            milliseconds=stopwatch.milliseconds(),
        )
        return prefix.tokens, stats

    def _require_room(self, input_ids: Tensor) -> None:
        """Refuse a prompt that the cache cannot hold, before anything is computed."""
        longest = self._capacity - PATCHES - ACTION_LENGTH
        if len(input_ids) > longest:
            raise ConfigurationError(
                f"the prompt has {len(input_ids)} tokens; at most {longest} fit: shorten the instruction"
            )

    def _prefill(self, input_ids: Tensor, patches: Tensor, stopwatch: Stopwatch) -> None:
        """Read image and prompt; the first action token comes with it."""
        length = len(input_ids) + PATCHES
        with stopwatch.phase("prefill"):
            embeddings = self.target.embed_prompt(input_ids.to(self.target.device), patches)
            self._cache.truncate(0)
            features = self.target(embeddings, torch.arange(length, device=self.target.device), self._cache)
            self._cache.commit(length)
            prediction, finite = self._predict(features[-1:])
            (token, is_finite) = torch.stack([prediction[0], finite]).tolist()
            _require_finite(is_finite)
            self._prefix.begin(embeddings, features, token)

    def _verify_and_commit(self, tree: DraftTree, limits: Tensor) -> list[int]:
        """One target forward over the tree; commit the accepted path and the token after it.

        Args:
            limits: largest distance admitted at each depth of the tree, the root's (unused) first.

        Returns:
            The distance in bins of each accepted draft token from the target's argmax.
        """
        cache, prefix = self._cache, self._prefix
        mask = None
        if len(tree) > 1:
            visible = torch.ones(len(tree), cache.length, dtype=torch.bool, device=tree.tokens.device)
            mask = torch.cat([visible, tree.ancestors], dim=1)
        features = self.target(self.target.embed_tokens(tree.tokens), prefix.length + tree.depths, cache, mask)
        predictions, finite = self._predict(features)
        distance = deviations(tree, predictions, self.target.config.action_ids)
        node = self._accepted_node(tree, distance, limits)
        # The round's one copy to the host: the path, its tokens and distances, the next token.
        outcome = torch.cat([tree.ancestors[node].long(), tree.tokens, distance, predictions, finite[None]]).tolist()
        on_path, tokens, distances, answers = (outcome[i * len(tree) : (i + 1) * len(tree)] for i in range(4))
        _require_finite(outcome[-1])
        path = [index for index, on in enumerate(on_path) if on]
        if path[-1] == len(path) - 1:
            cache.commit(len(path))  # these lie in order where they were written
            accepted = features[: len(path)]
        else:
            nodes = torch.tensor(path, device=tree.tokens.device)
            cache.commit_path(nodes)
            accepted = features[nodes]
        prefix.extend(accepted, [*(tokens[index] for index in path[1:]), answers[path[-1]]])
        if self.observer:
            self.observer(Round(tree, answers, distances, path))
        return [distances[index] for index in path[1:]]

    def _accepted_node(self, tree: DraftTree, distance: Tensor, limits: Tensor) -> Tensor:
        """Where the accepted path ends; a benchmark may decide otherwise."""
        return longest_accepted_node(tree, distance, limits)

    def _predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) the target's action token after each feature, and whether every logit is finite (0 or 1)."""
        logits = self.target.action_logits(features)
        return logits.argmax(dim=-1) + self.target.config.first_action_id, logits.isfinite().all().long()


def _require_finite(is_finite: int) -> None:
    """An argmax over NaN is a token like any other: refuse it before it becomes a motion."""
    if not is_finite:
        raise DecodeError(
            "the model's logits are not finite, so there is no action; check the checkpoint's weights, or use "
            "float32 or bfloat16 if it runs in float16"
        )
