"""Videos of episodes, upright and with a caption, written frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from specvla_ros.errors import ConfigurationError

FORMATS = (".mp4", ".gif")
CAPTION_HEIGHT = 32
SCALE = 2
"""Frames are written at twice their size, so that the caption is readable."""


def require_imageio(suffix: str = ".mp4") -> None:
    """So that a film that cannot be made is refused before there is anything to film.

    Args:
        suffix: one of FORMATS; a GIF needs no ffmpeg.

    Raises:
        ConfigurationError: imageio, or the ffmpeg that it runs, is not installed.
    """
    try:
        import imageio.v2  # noqa: F401

        if suffix == ".mp4":
            import imageio_ffmpeg

            imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:  # the latter where the package came without its ffmpeg
        raise ConfigurationError(
            f"{suffix} films are made with imageio and ffmpeg ({error}): pip install 'imageio[ffmpeg]'"
        ) from error


class VideoWriter:
    """Writes an MP4 (H.264) or a GIF, by the file's ending.

    Args:
        path: its folder is made when it does not exist.
        rate: frames per second of the video.

    Raises:
        ConfigurationError: neither .mp4 nor .gif, or see `require_imageio`, or the file cannot be written; the methods
            raise it then too.
    """

    def __init__(self, path: Path, rate: float) -> None:
        if path.suffix not in FORMATS:
            raise ConfigurationError(f"video {path} ends in {path.suffix!r}; expected {' or '.join(FORMATS)}")
        require_imageio(path.suffix)
        import imageio.v2 as imageio

        self.path = path
        # Ctrl-C reaches the main thread alone; where it interrupts imageio, that kills ffmpeg and the film with it.
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._writer: Any
        with self._telling():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".mp4":
                # Frames of other sizes than multiples of 2 cannot be H.264; macro_block_size 2 asks for no more.
                self._writer = imageio.get_writer(path, fps=rate, codec="libx264", quality=7, macro_block_size=2)
            else:
                self._writer = imageio.get_writer(path, duration=1000.0 / rate, loop=0)

    def write(self, image: NDArray[np.uint8], caption: str) -> None:
        """Append one (H, W, 3) RGB frame as LIBERO renders it; it is turned upright."""
        frame = captioned(np.ascontiguousarray(image[::-1]), caption)
        with self._telling():
            self._thread.submit(self._writer.append_data, frame).result()

    def close(self) -> None:
        """Finish the file."""
        with self._thread, self._telling():
            self._thread.submit(self._writer.close).result()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What imageio raises where nothing can be written, with ffmpeg's command in more lines, as a sentence."""
        try:
            yield
        except OSError as error:
            reason = str(error).splitlines()[0]
            raise ConfigurationError(
                f"video {self.path} cannot be written ({reason}); make room on its disk or choose another file"
            ) from error

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def captioned(image: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    """The image at twice its size over a dark strip with the caption, cut to its width."""
    height, width = image.shape[0] * SCALE, image.shape[1] * SCALE
    enlarged = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    strip = np.full((CAPTION_HEIGHT, width, 3), 24, np.uint8)
    scale = 0.45
    (text_width, _), _ = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    scale *= min(1.0, (width - 12) / max(text_width, 1))
    cv2.putText(strip, caption, (6, 21), cv2.FONT_HERSHEY_SIMPLEX, scale, (235, 235, 235), 1, cv2.LINE_AA)
    return np.vstack([enlarged, strip])
