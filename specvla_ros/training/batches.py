"""Batches of training frames, gathered from disk while the model computes."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass
from queue import Full, Queue

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specvla_ros.training.frames import FrameStore

GRIPPER_WEIGHT = REACH_WEIGHT = 3.0
REACH = 0.1
"""Metres to the object within which an open hand is about to take it."""
AHEAD = 4
"""Batches that wait to be used."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B frames.

    Attributes:
        images: (B, 224, 224, 3) uint8, not yet cropped.
        tokens: (B, 7) action token ids.
        landmarks: (B, 3, 5) float32.
        openings: (B,) float32, metres between the fingers.
        languages: (B,) index of the prompt.
    """

    images: Tensor
    tokens: Tensor
    landmarks: Tensor
    openings: Tensor
    languages: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        parts = (self.images, self.tokens, self.landmarks, self.openings, self.languages)
        return Batch(*(part.to(device) for part in parts))


class BatchSource:
    """Random batches for training and fixed ones for validation.

    Args:
        tokens: (N, 7) action token ids of the store's frames.
    """

    def __init__(self, store: FrameStore, tokens: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self._store = store
        self._tokens = tokens
        self._batch_size = batch_size
        self._seed = seed
        train = np.flatnonzero(~store.validation)
        # A grasp or a release is decided in a few of an episode's hundred steps; a policy that misses it fails the
        # episode however well it does the rest, so those steps are seen more often than their number asks for. So are
        # those before it: an open hand over an object looks much like one that carries it, which is seen far longer.
        weights = np.where(store.near_gripper, GRIPPER_WEIGHT, 1.0)
        weights = np.where(_reaching(store), REACH_WEIGHT, weights)
        self._train, self._cumulative = train, np.cumsum(weights[train])

    def rows(self, step: int) -> NDArray[np.int64]:
        """The frames of one training step. They depend on the seed and the step alone, so a resumed run goes on."""
        chance = np.random.default_rng((self._seed, step)).random(self._batch_size)
        drawn = np.searchsorted(self._cumulative, chance * self._cumulative[-1], side="right")
        # In the order of the file, which the disk reads faster.
        return np.sort(self._train[drawn])

    def gather(self, rows: NDArray[np.int64]) -> Batch:
        """Read frames."""
        return Batch(
            torch.from_numpy(self._store.images[rows]),
            torch.from_numpy(self._tokens[rows]),
            torch.from_numpy(self._store.landmarks[rows]),
            torch.from_numpy(self._store.openings[rows]),
            torch.from_numpy(self._store.languages[rows]),
        )

    def training(self, first_step: int) -> Generator[Batch, None, None]:
        """Batches of the steps from `first_step` on, without end; the thread that reads ahead ends with them."""
        ready: Queue[Batch | Exception] = Queue(AHEAD)
        stopped = threading.Event()
        reader = threading.Thread(target=self._read, args=(first_step, ready, stopped), daemon=True)
        reader.start()
        try:
            while True:
                batch = ready.get()
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            stopped.set()
            reader.join()

    def validation(self, limit: int) -> list[NDArray[np.int64]]:
        """Rows of at most `limit` held-out frames, spread evenly over them, in batches; always the same."""
        rows = np.flatnonzero(self._store.validation)
        if len(rows) > limit:
            rows = rows[np.linspace(0, len(rows) - 1, limit).astype(np.int64)]
        return [rows[start : start + self._batch_size] for start in range(0, len(rows), self._batch_size)]

    def _read(self, step: int, ready: Queue[Batch | Exception], stopped: threading.Event) -> None:
        item: Batch | Exception
        while not stopped.is_set():
            try:
                item = self.gather(self.rows(step))
            except Exception as error:  # a disk that fails must end the training, not leave it waiting
                item = error
            step += 1
            while not stopped.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    break
                except Full:
                    continue


def _reaching(store: FrameStore) -> NDArray[np.bool_]:
    """(N,) True where an open hand is close to its object; nowhere in data without landmarks."""
    hand, target = store.landmarks[:, 0, :3], store.landmarks[:, 1, :3]
    return (store.actions[:, 6] > 0.5) & (np.linalg.norm(target - hand, axis=1) < REACH)
