"""One action from an image file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.table import Table

from specvla_ros.errors import ImageError
from specvla_ros.policy import ACTION_DIMENSIONS, Action, Policy


def act_on_file(policy: Policy, path: Path, instruction: str) -> Action:
    """Read an image file and decode one action.

    Raises:
        ImageError: the file does not exist or is no picture.
    """
    try:
        image = np.array(Image.open(path).convert("RGB"))
    except FileNotFoundError as error:
        raise ImageError(f"image {path} does not exist") from error
    except IsADirectoryError as error:
        raise ImageError(f"image {path} is a folder; expected a picture file such as PNG or JPEG") from error
    except (UnidentifiedImageError, OSError) as error:
        raise ImageError(f"image {path} cannot be read; expected a picture file such as PNG or JPEG") from error
    return policy.act(image, instruction)


def print_action(action: Action, console: Console) -> None:
    """Values and tokens by dimension, and what they cost."""
    stats = action.stats
    table = Table("dimension", "value", "token", "off by [bins]", title="action")
    rows = zip(ACTION_DIMENSIONS, action.values, action.tokens, stats.deviations, strict=True)
    for name, value, token, deviation in rows:
        table.add_row(name, f"{value:+.4f}", str(token), str(deviation))
    console.print(table)
    times = ", ".join(f"{name} {value:.1f}" for name, value in stats.milliseconds.items())
    console.print(
        f"{stats.forwards} target forwards, {stats.accept_length:.2f} tokens per forward; "
        f"accepted per round: {' '.join(map(str, stats.accepted)) or 'none'}",
        highlight=False,
    )
    console.print(f"milliseconds: {times} (the first action of a process warms up)", highlight=False)
