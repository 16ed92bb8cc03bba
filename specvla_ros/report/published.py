"""What Spec-VLA published and what others measured of it: other machines and a 7B model, for comparison only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SOURCE = "Spec-VLA, arXiv 2507.22424, Table 1"
REPRODUCTIONS = "; reproductions: others, with its released code"
PAPER, OTHERS = "published", "reproduction"
AUTOREGRESSIVE, STRICT, RELAXED = "none", "Spec-VLA, strict", "Spec-VLA, relaxed"


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """Of OpenVLA-7B finetuned on a suite.

    Attributes:
        origin: PAPER or OTHERS; `machine` is theirs.
        threshold: in bins, the same for all seven dimensions.
        success: in percent; None where it was not said.
        accept_length: tokens per target forward of a draft.
        speed_up: against the same machine's own autoregressive decoding.
        milliseconds: of an action.
    """

    suite: str
    origin: str
    machine: str
    draft: str
    threshold: int
    success: float | None
    accept_length: float | None
    speed_up: float
    milliseconds: float | None = None


PUBLISHED = (
    PublishedRow("libero_goal", PAPER, "A100", AUTOREGRESSIVE, 0, 78.0, None, 1.0),
    PublishedRow("libero_goal", PAPER, "A100", STRICT, 0, 74.2, 2.04, 1.09),
    PublishedRow("libero_goal", PAPER, "A100", RELAXED, 9, 74.4, 2.94, 1.42),
    PublishedRow("libero_object", PAPER, "A100", AUTOREGRESSIVE, 0, 89.0, None, 1.0),
    PublishedRow("libero_object", PAPER, "A100", STRICT, 0, 89.0, 1.75, 1.15),
    PublishedRow("libero_object", PAPER, "A100", RELAXED, 9, 85.0, 2.38, 1.38),
    PublishedRow("libero_spatial", PAPER, "A100", AUTOREGRESSIVE, 0, 85.0, None, 1.0),
    PublishedRow("libero_spatial", PAPER, "A100", STRICT, 0, 83.8, 1.59, 1.08),
    PublishedRow("libero_spatial", PAPER, "A100", RELAXED, 9, 85.8, 2.14, 1.28),
    PublishedRow("libero_10", PAPER, "A100", AUTOREGRESSIVE, 0, 52.0, None, 1.0),
    PublishedRow("libero_10", PAPER, "A100", STRICT, 0, 50.8, 1.67, 1.13),
    PublishedRow("libero_10", PAPER, "A100", RELAXED, 9, 55.0, 2.10, 1.22),
    PublishedRow("libero_goal", OTHERS, "RTX 4090", AUTOREGRESSIVE, 0, None, None, 1.0, 161.9),
    PublishedRow("libero_goal", OTHERS, "RTX 4090", STRICT, 0, None, 1.63, 0.91, 178.6),
    PublishedRow("libero_goal", OTHERS, "RTX 4090", RELAXED, 9, None, 2.36, 1.15, 141.3),
    PublishedRow("libero_goal", OTHERS, "RTX 3090", AUTOREGRESSIVE, 0, None, None, 1.0, 282.6),
    PublishedRow("libero_goal", OTHERS, "RTX 3090", STRICT, 0, None, None, 0.88, 321.1),
    PublishedRow("libero_goal", OTHERS, "RTX 3090", RELAXED, 9, None, None, 1.04, 270.9),
)


def published(suite: str) -> list[PublishedRow]:
    """The rows of a suite; none where nobody published any."""
    return [row for row in PUBLISHED if row.suite == suite]


def source(rows: Sequence[PublishedRow]) -> str:
    """Where these rows come from."""
    return SOURCE + (REPRODUCTIONS if any(row.origin == OTHERS for row in rows) else "")
