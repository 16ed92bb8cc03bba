"""The bag in test/data: two seconds of the package's own policy in closed loop, decoded again bit for bit.

When the shipped weights change it must be recorded again, from the root of the repository: `RECORD`.
"""

from __future__ import annotations

from pathlib import Path

from specvla_ros.bags.origin import read_origin
from specvla_ros.bags.recording import Recording, Topics
from specvla_ros.bags.replay_check import replay_check
from specvla_ros.nodes.bag import BagReader
from specvla_ros.shipped import shipped_checkpoint
from specvla_ros.vla.fingerprint import weights_sha256

BAG = Path(__file__).parents[1] / "data" / "closed_loop"
RECORD = "rm -rf test/data/closed_loop && .venv/bin/specvla record test/data/closed_loop --jpeg 75 --max-steps 40"


def test_the_bag_was_recorded_with_the_shipped_weights() -> None:
    recorded_with = read_origin(BAG)["weights_sha256"]
    assert recorded_with == weights_sha256(shipped_checkpoint()), f"the shipped weights changed; now run: {RECORD}"


def test_the_bag_is_small_and_holds_compressed_images_under_an_instruction() -> None:
    assert sum(file.stat().st_size for file in BAG.iterdir()) < 500_000
    with BagReader(BAG) as bag:
        recording = Recording(bag, Topics())
        frames = list(recording.frames())
        assert recording.is_compressed and len(frames) >= 40 and len(recording.commands()) == 40
    assert frames[0].rgb().shape == (256, 256, 3) and frames[0].instruction.startswith("pick up the black bowl")


def test_the_policy_node_answers_every_image_with_the_recorded_tokens() -> None:
    report = replay_check(BAG, Topics(), {"device": "cpu"}, fast=True)
    assert report["thresholds"] == [0] * 7 and report["frames_compared"] == 40
    assert report["differences"] == [], "\n".join(report["changes"])
