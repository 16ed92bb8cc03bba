"""What is found in a bag, by name or by its end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bag_files import grey, write_bag
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Writer
from std_msgs.msg import String

from specvla_ros.bags.recording import Recording, Topics
from specvla_ros.errors import BagError, ImageError
from specvla_ros.nodes import bag as bag_module
from specvla_ros.nodes.bag import BagReader, BagWriter
from specvla_ros.nodes.conversion import rgb_to_image


def test_every_instruction_begins_an_episode_and_images_before_the_first_are_left_out(tmp_path: Path) -> None:
    instructions = [(2, "pick up the bowl"), (4, "pick up the bowl"), (5, "put it down")]
    with BagReader(write_bag(tmp_path / "bag", 7, instructions=instructions)) as bag:
        recording = Recording(bag, Topics())
        frames = list(recording.frames())
        assert len(list(recording.frames())) == 5, "it can be read again"
    assert [(frame.index, frame.episode) for frame in frames] == [(2, 1), (3, 1), (4, 2), (5, 3), (6, 3)]
    assert frames[0].instruction == "pick up the bowl" and frames[-1].instruction == "put it down"
    np.testing.assert_array_equal(frames[0].rgb(), grey(2))


def test_compressed_images_are_decoded(tmp_path: Path) -> None:
    with BagReader(write_bag(tmp_path / "bag", compressed=True)) as bag:
        recording = Recording(bag, Topics())
        assert recording.is_compressed
        assert np.abs(next(recording.frames()).rgb().astype(int) - grey(0)).max() <= 2


def test_an_image_that_cannot_be_decoded_is_named_by_its_place(tmp_path: Path) -> None:
    with BagReader(write_bag(tmp_path / "bag", compressed=True)) as bag:
        *_, last = Recording(bag, Topics()).frames()
    last.message.data = b"no picture"
    with pytest.raises(ImageError, match=r"image 4 of the bag, counted from 0: compressed image .* cannot be decoded"):
        last.rgb()


def test_a_bag_without_instructions_needs_one_and_takes_it(tmp_path: Path) -> None:
    with BagReader(write_bag(tmp_path / "bag", instructions=())) as bag:
        with pytest.raises(BagError, match="has no topic /instruction"):
            Recording(bag, Topics())
        assert [frame.episode for frame in Recording(bag, Topics(), "pick up").frames()] == [1] * 5


def test_images_that_all_come_before_the_instruction_are_no_recording(tmp_path: Path) -> None:
    with (
        BagReader(write_bag(tmp_path / "bag", 3, instructions=[(2, " ")])) as bag,
        pytest.raises(BagError, match="holds 3 images on /image, and none after an instruction"),
    ):
        list(Recording(bag, Topics()).frames())


def test_two_cameras_have_to_be_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topics = {
        **bag_module.TOPICS,
        "/left/image": type(rgb_to_image(grey(0))),
        "/right/image": type(rgb_to_image(grey(0))),
    }
    monkeypatch.setattr(bag_module, "TOPICS", topics)
    writer = BagWriter(tmp_path / "bag", "mcap")
    writer.write("/instruction", 1, String(data="pick up the bowl"))
    for side, index in (("left", 0), ("right", 1)):
        writer.write(f"/{side}/image", 2, rgb_to_image(grey(index)))
    writer.close()
    with BagReader(tmp_path / "bag") as bag:
        with pytest.raises(
            BagError, match="several topics /image: /left/image, /right/image; name one of them in full"
        ):
            Recording(bag, Topics())
        frames = list(Recording(bag, Topics(image="/right/image")).frames())
    np.testing.assert_array_equal(frames[0].rgb(), grey(1))


def test_a_bag_is_not_written_where_its_name_would_be_read_as_a_uri(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"run#3 cannot be of storage sqlite3 with one of #\?% in its path"):
        BagWriter(tmp_path / "run#3", "sqlite3")
    with BagReader(write_bag(tmp_path / "run#3", storage="mcap")) as bag:
        assert len(list(Recording(bag, Topics()).frames())) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["run#3"]


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_bag_with_damaged_bytes_is_refused_by_name(tmp_path: Path, storage: str) -> None:
    writer = BagWriter(tmp_path / "bag", storage)
    writer.write("/instruction", 1, String(data="pick up the bowl"))
    for index in range(30):
        writer.write("/image", 2 + index, rgb_to_image(grey(index)))
    writer.close()
    file = next(file for file in (tmp_path / "bag").iterdir() if file.suffix != ".yaml")
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 12_000] = b"\xff" * 12_000
    file.write_bytes(content)
    with BagReader(tmp_path / "bag") as bag, pytest.raises(BagError, match=r"bag .* is damaged: a message on /image"):
        list(Recording(bag, Topics()).frames())


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_compressed_bag_that_was_cut_short_is_refused_by_name(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CompressedWriter(Writer):
        def open(self) -> None:
            self.set_compression(CompressionMode.FILE, CompressionFormat.ZSTD)
            super().open()

    monkeypatch.setattr(bag_module, "Writer", CompressedWriter)
    folder = write_bag(tmp_path / "bag", storage=storage)
    with BagReader(folder) as bag:
        assert len(list(Recording(bag, Topics()).frames())) == 5
    (file,) = folder.glob("*.zstd")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BagError, match="bag cannot be read as a rosbag2 folder"):
        BagReader(folder)


def test_a_message_that_was_defined_otherwise_is_not_misread(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "bag")
    metadata = folder / "metadata.yaml"
    lines = metadata.read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if "EndEffectorCommand" in line)
    place = next(i for i in range(place, len(lines)) if "RIHS01_" in lines[i])
    lines[place] = lines[place][:-4] + "0000"
    metadata.write_text("\n".join(lines))
    with (
        BagReader(folder) as bag,
        pytest.raises(BagError, match="another definition of specvla_ros/msg/EndEffectorCommand"),
    ):
        Recording(bag, Topics()).commands()
