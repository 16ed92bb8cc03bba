"""Which episodes of the demonstrations are kept from training, the target's and its draft's alike."""

from __future__ import annotations

HELD_OUT_EVERY = 20
"""One episode in so many of each file is kept for validation, whole, so that no near-copy of its frames is trained."""


def is_held_out(episode: int) -> bool:
    """Whether an episode, by its place in its file, is kept from training."""
    return episode % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
