"""Isolation, before anything imports rclpy or MuJoCo: a DDS domain and a log folder for each test process."""

from __future__ import annotations

import os
import tempfile

os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_LOG_DIR", tempfile.mkdtemp(prefix="specvla-test-log-"))
os.environ.setdefault("MUJOCO_GL", "egl")
