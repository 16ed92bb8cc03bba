"""One action from an image file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from specvla_ros.errors import ImageError
from specvla_ros.policy import ACTION_DIMENSIONS, Action


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A file as (H, W, 3) uint8 RGB, turned as its EXIF data say: what a viewer shows. Of an animation the first frame.

    Raises:
        ImageError: the file does not exist, is no picture, or has more than 8 bits a channel.
    """
    try:
        with Image.open(path) as file:
            mode, picture = file.mode, ImageOps.exif_transpose(file).convert("RGB")
    except FileNotFoundError as error:
        raise ImageError(f"image {path} does not exist") from error
    except IsADirectoryError as error:
        raise ImageError(f"image {path} is a folder; expected a picture file such as PNG or JPEG") from error
    except Exception as error:  # what Pillow raises depends on the format, and on where the file is broken
        raise ImageError(
            f"image {path} cannot be read; expected a picture file such as PNG or JPEG ({error})"
        ) from error
    if mode.startswith(("I", "F")):
        raise ImageError(f"image {path} has pixels of more than 8 bits (mode {mode}); expected a colour picture of 8")
    return np.array(picture)


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
