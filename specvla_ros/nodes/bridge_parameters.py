"""The LIBERO bridge's parameters; config/libero.yaml is their commented reference."""

from __future__ import annotations

from specvla_ros.nodes.parameters import ParameterSpec
from specvla_ros.sim.holding import HOLD_TIME
from specvla_ros.sim.libero import SUITES

PARAMETERS = (
    ParameterSpec("suite", "libero_spatial", "LIBERO suite", choices=SUITES),
    ParameterSpec("task", 0, "index of the task in its suite", range=(0, 89)),
    ParameterSpec("episode", 0, "index of the benchmark's fixed initial state", range=(0, 49)),
    ParameterSpec(
        "seed", 0, "of what the initial state does not hold: where cabinet and stove stand", range=(0, 2**31)
    ),
    ParameterSpec(
        "max_steps", 0, "the episode ends after so many steps; 0 is OpenVLA's limit for the suite", range=(0, 10000)
    ),
    ParameterSpec(
        "mode",
        "lockstep",
        "lockstep: one step for each command, repeatable; realtime: steps by the clock whatever the policy does",
        choices=("lockstep", "realtime"),
    ),
    ParameterSpec(
        "real_time_factor",
        0.25,
        "realtime: simulated seconds per second of wall time, 20 steps each",
        range=(0.01, 10.0),
    ),
    ParameterSpec(
        "hold_time",
        HOLD_TIME,
        "realtime: the last command holds for so many simulated seconds, then the arm stops",
        range=(0.0, 10.0),
    ),
    ParameterSpec(
        "command_timeout",
        0.5,
        "lockstep: without an answer for so many seconds the image is sent again",
        range=(0.01, 60.0),
    ),
    ParameterSpec(
        "policy_timeout",
        60.0,
        "give up when the policy gives no command (realtime: no first one) for so many seconds",
        range=(0.1, 3600.0),
    ),
    ParameterSpec("image_size", 256, "height and width of the camera images in pixels", range=(32, 1024)),
    ParameterSpec(
        "image_transport",
        "raw",
        "raw: sensor_msgs/Image on image; compressed: sensor_msgs/CompressedImage on image/compressed",
        choices=("raw", "compressed"),
    ),
    ParameterSpec("jpeg_quality", 95, "of compressed images", range=(1, 100)),
    ParameterSpec("wrist", False, "also publish the wrist camera on wrist_image, always raw"),
    ParameterSpec(
        "fast_rendering",
        True,
        "fewer triangles and no reflections: a third of a frame's time, a slightly different picture",
    ),
    ParameterSpec("video", "", "write the episode to this .mp4 or .gif; empty writes none"),
    ParameterSpec("bag", "", "record the episode into this new rosbag2 folder; empty records none"),
    ParameterSpec("bag_storage", "mcap", "storage of the bag", choices=("mcap", "sqlite3")),
    ParameterSpec("result", "", "write the episode's figures to this JSON file; empty writes none"),
)
