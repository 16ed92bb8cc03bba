"""Small JSON files that are there whole, whenever their writer is killed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def replace_json(path: Path, content: Any) -> None:
    """Write the file, or another one in its place, at once."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(partial, path)
