from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specvla_ros.errors import ConfigurationError
from specvla_ros.sim.video import CAPTION_HEIGHT, SCALE, VideoWriter

imageio = pytest.importorskip("imageio.v2")
pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed: make venv brings it")


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_frames_are_written_upright_with_a_caption(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "folder" / f"episode{suffix}"
    upside_down = np.zeros((64, 64, 3), np.uint8)
    upside_down[:32] = (255, 0, 0)
    with VideoWriter(path, rate=20) as video:
        for _ in range(5):
            video.write(upside_down, "pick up the black bowl and place it on the plate, a long caption | step 5")
    frames = imageio.mimread(path)
    assert len(frames) == 5 or suffix == ".gif"
    frame = np.asarray(frames[-1])[..., :3]
    assert frame.shape == (64 * SCALE + CAPTION_HEIGHT, 64 * SCALE, 3)
    assert frame[20, 64, 0] < 60 and frame[110, 64, 0] > 200, "red was on top of the upside-down image"
    assert frame[-CAPTION_HEIGHT:].max() > 100, "the caption is there"


class InterruptedPipe:
    """To ffmpeg; Ctrl-C comes in the middle of each frame."""

    def __init__(self, pipe: Any) -> None:
        self.close = pipe.close
        self._pipe = pipe

    def write(self, data: bytes) -> None:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.01)
        self._pipe.write(data)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as Python has it, whatever a test before, with ROS in it, has left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before or signal.default_int_handler)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_in_the_middle_of_a_frame_leaves_a_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Process(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            if self.stdin and not isinstance(self.stdin, InterruptedPipe):
                monkeypatch.setattr(self, "stdin", InterruptedPipe(self.stdin))

    video = VideoWriter(tmp_path / "film.mp4", rate=20)
    monkeypatch.setattr(subprocess, "Popen", Process)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            video.write(np.zeros((64, 64, 3), np.uint8), "pick up")
    video.close()
    monkeypatch.undo()
    assert len(imageio.mimread(tmp_path / "film.mp4")) == 3


def test_without_ffmpeg_an_mp4_is_refused_with_the_package_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ConfigurationError, match=r"mp4 films .*imageio_ffmpeg.*: pip install 'imageio\[ffmpeg\]'"):
        VideoWriter(tmp_path / "film.mp4", rate=20)
    with VideoWriter(tmp_path / "film.gif", rate=20) as video:
        video.write(np.zeros((64, 64, 3), np.uint8), "a GIF needs none")


def test_an_imageio_ffmpeg_that_came_without_its_ffmpeg_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", absent)
    with pytest.raises(ConfigurationError, match="No ffmpeg exe could be found"):
        VideoWriter(tmp_path / "film.mp4", rate=20)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_folder_that_cannot_be_made_is_told_as_a_film_that_cannot_be_written(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(ConfigurationError, match=r"video .* cannot be written \(.*taken"):
        VideoWriter(tmp_path / "taken" / f"film{suffix}", rate=20)


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"expected .mp4 or .gif"):
        VideoWriter(tmp_path / "episode.avi", rate=20)
