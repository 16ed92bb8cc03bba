"""Picture files as a person has them: turned, transparent, of few colours or many bits, broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from specvla_ros.act import read_picture
from specvla_ros.errors import ImageError

ROTATED = 6
"""EXIF: the camera was held upright, and the picture has to be turned by a quarter to the right to be shown."""


def scene() -> np.ndarray:
    """Red in the upper left quarter."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20, :30, 0] = 255
    return image


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_is_turned_as_a_viewer_shows_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"phone.{suffix}"
    exif = Image.Exif()
    exif[0x112] = ROTATED
    Image.fromarray(scene()).save(path, exif=exif)
    picture = read_picture(path)
    assert picture.shape == (60, 40, 3)
    assert picture[5, 35, 0] > 200 and picture[5, 5, 0] < 50, "what was upper left is upper right"


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK", "RGB"])
def test_colours_are_the_same_in_every_mode_of_8_bits(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "picture.tiff"
    Image.fromarray(scene()).convert(mode).save(path)
    assert np.array_equal(read_picture(path), scene())


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.fromarray(scene()), Image.fromarray(255 - scene())]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert np.array_equal(read_picture(tmp_path / "film.gif"), scene())


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_pixels_of_more_than_8_bits_are_refused_and_not_clipped(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "depth.tiff"
    Image.fromarray(np.arange(2400).reshape(40, 60).astype(kind)).save(path)
    with pytest.raises(ImageError, match=r"depth.tiff has pixels of more than 8 bits \(mode (I|I;16|F)\)"):
        read_picture(path)


@pytest.mark.parametrize("broken", ["cut", "too many pixels", "empty"])
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)).save(path)
    if broken == "too many pixels":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99 * 99 // 3)
    else:
        path.write_bytes(path.read_bytes()[: 9000 if broken == "cut" else 0])
    with pytest.raises(ImageError, match=r"picture.png cannot be read; expected a picture file such as PNG or JPEG \("):
        read_picture(path)
