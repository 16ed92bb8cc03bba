"""`specvla record`: an episode in closed loop over DDS, into a bag that says what recorded it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from specvla_ros.bags.origin import origin, write_origin
from specvla_ros.demo import DemoOptions, conditions, run_demo


def record(options: DemoOptions, bag: Path, storage: str, jpeg_quality: int, console: Console) -> dict[str, Any]:
    """Run the episode; the bridge writes what goes over the topics. Its figures, and what recorded it.

    Args:
        bag: rosbag2 folder, which must not exist yet.
        storage: "mcap" or "sqlite3".
        jpeg_quality: 1 to 100, of compressed images, which the policy then sees; 0: raw ones.

    Raises:
        SimulationError: one of the two processes ended early, for example because the bag exists.
    """
    transport = {"image_transport": "compressed" if jpeg_quality else "raw"}
    quality = {"jpeg_quality": jpeg_quality} if jpeg_quality else {}
    bridge = {**options.bridge, **transport, **quality, "bag": bag.resolve(), "bag_storage": storage}
    bridge["command_timeout"] = 10.0  # no image is sent twice, so that each has its command
    report = run_demo(DemoOptions({**options.policy, **transport}, bridge, options.output), console)
    checkpoint = options.policy["checkpoint"]
    recorded = {"checkpoint": checkpoint, **conditions(options.policy), **origin(checkpoint)}
    write_origin(bag, recorded)
    size = sum(file.stat().st_size for file in bag.iterdir())
    console.print(f"bag:     {bag} ({size / 1e3:.0f} kB)", highlight=False, soft_wrap=True)
    return {**report, **recorded, "bag_bytes": size}
