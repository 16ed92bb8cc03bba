"""Evaluation processes import the stand-ins by name, from the path that they inherit."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
