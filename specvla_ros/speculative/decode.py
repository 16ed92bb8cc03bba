"""The decode loop of Spec-VLA (arXiv 2507.22424): draft a tree, verify it in one forward, commit the accepted path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from specvla_ros.errors import ConfigurationError, DecodeError
from specvla_ros.policy import ACTION_LENGTH, DecodeStats, Thresholds
from specvla_ros.speculative.acceptance import deviations, longest_accepted_node
from specvla_ros.speculative.drafter import UNREAD, Drafter, History, Prefix
from specvla_ros.speculative.stopwatch import Stopwatch
from specvla_ros.speculative.tree import DraftTree
from specvla_ros.vla.cache import KeyValueCache
from specvla_ros.vla.config import IMAGE_SIZE, PATCHES
from specvla_ros.vla.graphs import Eager, Graphs, Runner
from specvla_ros.vla.model import OpenVLA
from specvla_ros.vla.prompt import BOS_ID

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
        runner: of the work on the device: `Eager`, or `Graphs` that are then to be recorded.

    Attributes:
        observer: called with every round, after it was committed.

    Raises:
        CheckpointError: the target knows fewer positions than `capacity`.
    """

    def __init__(self, target: OpenVLA, drafter: Drafter, *, capacity: int, runner: Runner | None = None) -> None:
        target.config.llama.require_positions(capacity, "the checkpoint's text_config")
        self.target = target
        self.drafter = drafter
        self.runner: Runner = Eager() if runner is None else runner
        self.observer: Callable[[Round], None] | None = None
        self._capacity = capacity
        self._cache: KeyValueCache = target.new_cache(capacity + MAX_TREE_NODES)
        self._prefix = Prefix(target, capacity, self.runner)
        self._limits = torch.zeros(ACTION_LENGTH + 1, dtype=torch.long, device=target.device)
        self._thresholds: Thresholds | None = None
        self._itself = torch.ones(1, 1, dtype=torch.bool, device=target.device)

    @torch.inference_mode()
    def decode(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        thresholds: Thresholds,
        history: History | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> tuple[list[int], DecodeStats]:
        """One action.

        With all thresholds 0 the tokens are those of greedy decoding. Otherwise each token is at most its
        dimension's threshold away from the target's argmax given the tokens before it.

        Args:
            input_ids: (n,) prompt ids, BOS first.
            pixel_values: (1, 6, 224, 224).
            thresholds: bins, per dimension.
            history: of the episode; the action is added to it. By default there was no action before.
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
            (patches,) = self.runner.run("vision", self._see, pixel_values)
        return self.decode_patches(input_ids, patches, thresholds, history, stopwatch)

    @torch.inference_mode()
    def decode_patches(
        self,
        input_ids: Tensor,
        patches: Tensor,
        thresholds: Thresholds,
        history: History | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> tuple[list[int], DecodeStats]:
        """`decode` from the (256, hidden) projected patches of an image that was seen before."""
        stopwatch = stopwatch or Stopwatch(self.target.device)
        history = History() if history is None else history
        misses = self.runner.misses
        self._require_room(input_ids)
        self._set_limits(thresholds)
        prefix = self._prefix
        accepted_per_round: list[int] = []
        distances = [0]
        with stopwatch.phase("prefill"):
            self._prefill(input_ids, patches, history)
        while (left := ACTION_LENGTH - len(prefix.tokens)) > 0:
            with stopwatch.phase("draft"):
                # The verification itself brings one token, so a useful draft is one shorter than what is left.
                tree = self.drafter.draft(prefix, left - 1)
            with stopwatch.phase("verify"):
                path_distances = self._verify(tree)
            accepted_per_round.append(len(path_distances))
            distances += [*path_distances, 0]
        self._read()
        history.append(prefix.tokens)
        stats = DecodeStats(
            accepted=tuple(accepted_per_round),
            forwards=1 + len(accepted_per_round),
            deviations=tuple(distances),
            milliseconds=stopwatch.milliseconds(),
            graph_misses=self.runner.misses - misses,
        )
        return prefix.tokens, stats

    @torch.inference_mode()
    def record(self, graphs: Graphs, advance: Callable[[int, int], None]) -> None:
        """Record every pass that an action can need, for each length of the prompt that the graphs know.

        Args:
            graphs: the decoder's runner.
            advance: told how many steps of how many are done.

        Raises:
            DecodeError: the model's logits are not finite.
        """
        steps = 2 * len(graphs.buckets) * (ACTION_LENGTH - 1)
        done = 0
        device, config = self.target.device, self.target.config
        with graphs.recording():
            (patches,) = graphs.run("vision", self._see, torch.zeros(1, 6, IMAGE_SIZE, IMAGE_SIZE))
            for bucket in graphs.buckets:
                history = History()
                for _ in range(2):  # without an action before, and with one
                    self._prefill(torch.full((bucket - PATCHES,), BOS_ID), patches, history)
                    for count in range(1, ACTION_LENGTH):
                        self._prefix.tokens = [config.first_action_id] * count
                        self._cache.truncate(self._prefix.length)
                        self._verify(self.drafter.draft(self._prefix, ACTION_LENGTH - count - 1))
                        self._read()
                        done += 1
                        advance(done, steps)
                    history.append([config.first_action_id] * ACTION_LENGTH)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def _require_room(self, input_ids: Tensor) -> None:
        """Refuse a prompt that the cache cannot hold, before anything is computed."""
        longest = self._capacity - PATCHES - ACTION_LENGTH
        if len(input_ids) > longest:
            raise ConfigurationError(
                f"the prompt has {len(input_ids)} tokens; at most {longest} fit: shorten the instruction"
            )

    def _set_limits(self, thresholds: Thresholds) -> None:
        """On the device, where the graphs look for them."""
        if thresholds != self._thresholds:
            self._limits.copy_(torch.tensor((*thresholds, 0)))
            self._thresholds = thresholds

    def _prefill(self, input_ids: Tensor, patches: Tensor, history: History) -> None:
        """Read image and prompt; the first action token comes with it. The host does not wait for it."""
        length = len(input_ids) + PATCHES
        buckets = [bucket for bucket in self.runner.buckets if bucket >= length]
        slots = min(buckets, default=length)
        self._cache.truncate(0)
        self._prefix.begin(history, length, slots, padded=bool(buckets))
        ids = F.pad(input_ids, (0, slots - length), value=BOS_ID)
        self.runner.run(("prefill", slots), self._read_prompt, ids, patches)
        self._cache.commit(slots)
        self._prefix.tokens = [UNREAD]

    def _verify(self, tree: DraftTree) -> list[int]:
        """One target forward over the tree; commit the accepted path and the token after it.

        Returns:
            The distance in bins of each accepted draft token from the target's argmax.
        """
        if len(tree) == 1:
            return self._step()
        prefix = self._prefix
        key = "verify", prefix.prompt_slots, len(prefix.tokens), len(tree), tree.is_chain
        (outcome,) = self.runner.run(key, self._judge, *tree.parts)
        values = self._read(outcome)
        on_path, tokens, distances, answers = (values[i * len(tree) : (i + 1) * len(tree)] for i in range(4))
        path = [index for index, on in enumerate(on_path) if on]
        self._cache.commit(len(path))
        prefix.tokens += [*(tokens[index] for index in path[1:]), answers[path[-1]]]
        if self.observer:
            self.observer(Round(tree, answers, distances, path))
        return [distances[index] for index in path[1:]]

    def _step(self) -> list[int]:
        """`_verify` of a bare root. That one token follows is known, so the host need not wait to see which."""
        prefix = self._prefix
        self.runner.run(("verify", prefix.prompt_slots, len(prefix.tokens)), self._read_newest)
        self._cache.commit(1)
        prefix.tokens.append(UNREAD)
        return []

    def _read(self, *outcome: Tensor) -> list[int]:
        """Wait for the device, once, if there is something to read: the tokens that are `UNREAD` go to their places.

        Returns:
            The values of a round's `outcome`, less the last, which says whether its logits are finite.

        Raises:
            DecodeError: they are not, or those of an unread token.
        """
        prefix = self._prefix
        if UNREAD not in prefix.tokens and not outcome:
            return []
        end = len(prefix.tokens)
        start = end - prefix.tokens.count(UNREAD)
        values = torch.cat([prefix.answers[start:end].flatten(), *outcome]).tolist()
        answers, values = values[: 2 * (end - start)], values[2 * (end - start) :]
        self._require_finite(all([*answers[1::2], *values[-1:]]))
        prefix.tokens[start:] = answers[::2]
        if self.observer:
            for token, answer in pairwise(prefix.tokens[max(start - 1, 0) :]):
                self.observer(Round(DraftTree.bare(torch.tensor([token])), [answer], [0], [0]))
        return values[:-1]

    def _see(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        return (self.target.project_image(pixel_values),)

    def _read_prompt(self, input_ids: Tensor, patches: Tensor) -> tuple[Tensor, ...]:
        """The target over image and prompt; the first action token goes to the prefix."""
        embeddings = self.target.embed_prompt(input_ids.to(self.target.device), patches)
        positions = torch.arange(len(embeddings), device=self.target.device)
        features = self.target(embeddings, positions, self._cache)
        token = self._answer(self._prefix.last_of_prompt(features))
        self._prefix.fill_prompt(embeddings, features, token)
        return ()

    def _read_newest(self) -> tuple[Tensor, ...]:
        """The target over the newest token; the one after it goes to the prefix."""
        prefix, target = self._prefix, self.target
        mask = prefix.mask(prefix.length, self._itself)
        features = target(target.embed_tokens(prefix.newest), prefix.position[None], self._cache, mask)
        token = self._answer(features)
        prefix.fill_path(features, token, token)
        return ()

    def _judge(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """The target over a tree: the accepted path goes to the cache and the prefix.

        Returns:
            (4 n + 1,) for each node whether it is accepted, its token, its distance in bins from the target's answer at
            its parent, and the target's answer after it; then whether all logits are finite.
        """
        tree, prefix = DraftTree.from_parts(*parts), self._prefix
        mask = prefix.mask(prefix.length, tree.ancestors)
        features = self.target(self.target.embed_tokens(tree.tokens), prefix.position + tree.depths, self._cache, mask)
        predictions, finite = self._predict(features)
        distance = deviations(tree, predictions, self.target.config.action_ids)
        # The first limit is the root's and admits nothing, which it does not need.
        node = self._accepted_node(tree, distance, self._limits[len(prefix.tokens) - 1 :])[None]
        self._keep(tree, features, predictions, node)
        return (torch.cat([tree.ancestors[node][0].long(), tree.tokens, distance, predictions, finite]),)

    def _keep(self, tree: DraftTree, features: Tensor, predictions: Tensor, node: Tensor) -> None:
        """Move the accepted path to (1,) `node` directly behind the prefix in the cache.

        Rows beyond the path's end are overwritten before they count.
        """
        newest = predictions[node]
        longest = min(len(tree), ACTION_LENGTH - len(self._prefix.tokens)) - 1
        path = tree.path_to(node, longest)
        drafted = torch.arange(1, longest + 2, device=path.device) <= tree.depths[node]
        following = torch.where(drafted, tree.tokens[path.roll(-1)], newest)
        self._cache.move(path)
        self._prefix.fill_path(features[path], following, newest)

    def _accepted_node(self, tree: DraftTree, distance: Tensor, limits: Tensor) -> Tensor:
        """Where the accepted path ends; a benchmark may decide otherwise."""
        return longest_accepted_node(tree, distance, limits)

    def _answer(self, feature: Tensor) -> Tensor:
        """The (1,) token after a (1, hidden) feature; it is left where the host reads it later."""
        token, finite = self._predict(feature)
        self._prefix.answers[len(self._prefix.tokens)] = torch.cat([token, finite])
        return token

    def _predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) the target's action token after each feature, and whether every logit is finite, (1,) of 0 or 1."""
        logits = self.target.action_logits(features)
        return logits.argmax(dim=-1) + self.target.config.first_action_id, logits.isfinite().all().long()[None]

    def _require_finite(self, is_finite: bool) -> None:
        """An argmax over NaN is a token like any other: refuse it before it becomes a motion."""
        if is_finite:
            return
        # 0 * NaN is NaN: clear masked slots, or the next action's padding inherits it.
        self._cache.clear()
        self.drafter.clear()
        raise DecodeError(
            "the model's logits are not finite, so there is no action; check the checkpoint's weights, or use "
            "float32 or bfloat16 if it runs in float16"
        )
