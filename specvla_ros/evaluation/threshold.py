"""A threshold as the user writes it."""

from __future__ import annotations

from collections.abc import Sequence

from specvla_ros.errors import ConfigurationError
from specvla_ros.policy import PLAIN, expand_thresholds


def threshold_text(threshold: int | Sequence[int]) -> str:
    """One number, or seven joined by commas: what `parse_threshold` reads."""
    return str(threshold) if isinstance(threshold, int) else ",".join(map(str, threshold))


def require_draft(drafts: Sequence[str], thresholds: Sequence[int | Sequence[int]]) -> None:
    """Refuse a threshold where nothing is drafted: it would silently be plain greedy decoding.

    Raises:
        ConfigurationError: there are thresholds and no drafts, or a threshold is out of range.
    """
    relaxed = [one for one in thresholds if any(expand_thresholds(one))]
    if relaxed and set(drafts) == {PLAIN}:
        raise ConfigurationError(
            f"threshold {threshold_text(relaxed[0])} says which draft tokens are accepted, and there is no draft; give "
            "one, such as hold"
        )


def parse_threshold(text: str) -> int | tuple[int, ...]:
    """Bins: one number for the six motion dimensions, or seven joined by commas.

    Raises:
        ConfigurationError: not whole numbers.
    """
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigurationError(
            f"threshold {text!r} is none; expected a whole number of bins, or seven with commas between them"
        ) from error
    return values[0] if len(values) == 1 else values
