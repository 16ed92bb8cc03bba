from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specvla_ros.errors import ConfigurationError
from specvla_ros.sim.video import CAPTION_HEIGHT, SCALE, VideoWriter

imageio = pytest.importorskip("imageio.v2")


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


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"expected .mp4 or .gif"):
        VideoWriter(tmp_path / "episode.avi", rate=20)
