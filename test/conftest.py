"""Isolation, before anything imports rclpy, MuJoCo or Triton: a DDS domain and a log folder for each test process."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings

# How long an example takes depends on what else the machine does.
settings.register_profile("specvla", settings(), deadline=None)
settings.load_profile("specvla")

os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
if "ROS_LOG_DIR" not in os.environ:
    os.environ["ROS_LOG_DIR"] = tempfile.mkdtemp(prefix="specvla-test-log-")
    atexit.register(shutil.rmtree, os.environ["ROS_LOG_DIR"], ignore_errors=True)
os.environ.setdefault("MUJOCO_GL", "egl")
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"  # kernels for a GPU run on the CPU then, one program after the other
