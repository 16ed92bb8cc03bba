"""Where the reference checkpoints are: small models in the public layouts with the public implementations' values."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(os.environ.get("SPECVLA_REFERENCE") or Path(__file__).parents[2] / "shared" / "reference")
CASES = ("a", "b", "wide")

needs_reference = pytest.mark.skipif(
    not ROOT.is_dir(),
    reason="the reference checkpoints are not here; set SPECVLA_REFERENCE to the folder that holds openvla_tiny",
)


def values(name: str) -> dict[str, np.ndarray]:
    """The arrays of one reference set: openvla_tiny, specvla_draft_tiny or specvla_draft_untrained."""
    with np.load(ROOT / name / "reference.npz") as arrays:
        return dict(arrays)
