"""How many camera images of 640 x 480 at 30 Hz arrive, by how they are sent: two processes over real DDS.

`SPECVLA_WRITE_IMAGES=1` writes docs/images.md.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from peer import PATIENCE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "images.md"
PROFILE = {"FASTDDS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / "fastdds.xml")}
COUNT = 150
"""Images: five seconds."""
EXPLANATION = """\
Fast DDS keeps half a megabyte of shared memory for each process. A raw image of 921 600 bytes does not fit, goes by
UDP in pieces of 65 kB, and is lost with any of them. `config/fastdds.xml` gives it 32 MiB. The launch files set it
for this package's nodes; the camera's process needs it too: `FASTDDS_DEFAULT_PROFILES_FILE=.../config/fastdds.xml`.
Or publish JPEG with image_transport, and set `image_transport: compressed`. Or, where the camera publishes
reliably, set `image_reliability: reliable`."""

CAMERA = """
import sys, time
import numpy as np, rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from specvla_ros.nodes.conversion import rgb_to_compressed, rgb_to_image

kind, reliability, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
rclpy.init()
node = rclpy.create_node("camera")
qos = QoSProfile(depth=1, reliability=ReliabilityPolicy[reliability])
publisher = node.create_publisher(Image if kind == "raw" else CompressedImage, "image", qos)
rows, columns = np.mgrid[0:480, 0:640]
picture = np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)
message = rgb_to_image(picture) if kind == "raw" else rgb_to_compressed(picture, 90)
while publisher.get_subscription_count() == 0:
    time.sleep(0.01)
time.sleep(0.5)
started = time.monotonic()
for number in range(count):
    message.header.stamp = node.get_clock().now().to_msg()
    publisher.publish(message)
    time.sleep(max(0.0, started + (number + 1) / 30.0 - time.monotonic()))
time.sleep(0.5)
"""
LISTENER = """
import json, sys, time
import numpy as np, rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

kind, reliability = sys.argv[1], sys.argv[2]
rclpy.init()
node, ages, size = rclpy.create_node("listener"), [], []

def heard(message):
    stamp = message.header.stamp
    ages.append(node.get_clock().now().nanoseconds * 1e-6 - (stamp.sec * 1e3 + stamp.nanosec * 1e-6))
    size.append(len(message.data))

qos = QoSProfile(depth=1, reliability=ReliabilityPolicy[reliability])
node.create_subscription(Image if kind == "raw" else CompressedImage, "image", heard, qos)
seen = False
while not seen or node.count_publishers("image"):
    rclpy.spin_once(node, timeout_sec=0.1)
    seen = seen or node.count_publishers("image") > 0
p50, p95 = np.percentile(ages, [50, 95]) if ages else (None, None)
print(json.dumps({"arrived": len(ages), "p50": p50, "p95": p95, "bytes": max(size, default=0)}))
"""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to send images, and the smallest share of them that must arrive; None where it is only shown."""

    name: str
    kind: str
    reliability: str
    environment: dict[str, str]
    must_arrive: float | None


WAYS = (
    Way("raw, best effort, Fast DDS as it comes", "raw", "BEST_EFFORT", {}, None),
    Way("raw, reliable, Fast DDS as it comes", "raw", "RELIABLE", {}, None),
    Way("raw, best effort, with config/fastdds.xml", "raw", "BEST_EFFORT", PROFILE, 0.9),
    Way("JPEG, best effort, Fast DDS as it comes", "jpeg", "BEST_EFFORT", {}, 0.9),
    Way("JPEG, best effort, with config/fastdds.xml", "jpeg", "BEST_EFFORT", PROFILE, 0.9),
)
measured: dict[str, dict[str, float]] = {}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_images_arrive_the_ways_the_readme_recommends(way: Way) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in PROFILE} | way.environment
    arguments = (way.kind, way.reliability)
    listener = subprocess.Popen(
        [sys.executable, "-c", LISTENER, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )
    camera = subprocess.Popen([sys.executable, "-c", CAMERA, *arguments, str(COUNT)], env=environment)
    try:
        assert camera.wait(2 * PATIENCE) == 0
        output, _ = listener.communicate(timeout=2 * PATIENCE)
    finally:
        camera.terminate()
        listener.terminate()
    measured[way.name] = json.loads(output)
    if way.must_arrive is not None:
        assert measured[way.name]["arrived"] >= way.must_arrive * COUNT, measured[way.name]


def test_the_page_is_written_on_request() -> None:
    if not os.environ.get("SPECVLA_WRITE_IMAGES"):
        assert all(f"| {way.name} |" in PAGE.read_text() for way in WAYS), "SPECVLA_WRITE_IMAGES=1 writes the page"
        return
    assert len(measured) == len(WAYS)
    PAGE.write_text(page())


def page() -> str:
    """The table with the command that makes it."""
    rows = [
        f"| {way.name} | {found['bytes'] / 1e3:.0f} kB | {found['arrived']:.0f} of {COUNT} "
        f"| {_milliseconds(found['p50'])} / {_milliseconds(found['p95'])} |"
        for way, found in ((way, measured[way.name]) for way in WAYS)
    ]
    return "\n".join(
        [
            "# Camera images of 640 x 480 at 30 Hz",
            "",
            "From a process that publishes to one that listens on the same machine, both in Python, five seconds each,",
            f"{os.cpu_count()} cores, {platform.system()}. Ages are from the image's stamp to the callback, p50 / p95.",
            "Written by:",
            "",
            "```sh",
            "SPECVLA_WRITE_IMAGES=1 pytest test/nodes/test_images_at_size.py",
            "```",
            "",
            "| how | an image | arrived | age [ms] |",
            "|---|---|---|---|",
            *rows,
            "",
            EXPLANATION,
            "",
        ]
    )


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
