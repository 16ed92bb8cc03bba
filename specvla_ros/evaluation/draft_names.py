"""Short names of drafts, for tables, curves and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from specvla_ros.speculative.build import split_names


def short_draft(draft: str, parts: int = 1) -> str:
    """Of each path the last parts only."""
    return "+".join(str(Path(*Path(one).parts[-parts:])) for one in split_names(draft))


def draft_names(several: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each one's draft by the last part of its path, or as many as tell it from the other drafts.

    Args:
        several: conditions, of which `draft` and `fingerprint` count; the same weights are the same draft, however
            their place was written.
    """
    return [_name(one, several) for one in several]


def _name(one: Mapping[str, Any], beside: Sequence[Mapping[str, Any]]) -> str:
    draft = str(one["draft"])
    others = {str(other["draft"]) for other in beside if other["fingerprint"] != one["fingerprint"]} - {draft}
    for parts in range(1, 1 + len(Path(draft).parts)):
        name = short_draft(draft, parts)
        if all(short_draft(other, parts) != name for other in others):
            return name
    return draft
