"""Whether this machine can render, tried in a process of its own because a broken driver takes its process with it."""

from __future__ import annotations

import os
import subprocess
import sys

_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light pos='0 0 3'/><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 32, 32)
renderer.update_scene(data)
assert renderer.render().any()
print("rendered")
"""


def render_check(timeout: float = 30.0) -> tuple[bool, str]:
    """True and the backend's name when an image came out; else False and the last line of the error."""
    backend = os.environ.get("MUJOCO_GL", "egl")
    try:
        result = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env={**os.environ, "MUJOCO_GL": backend},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"{backend}: no image within {timeout:.0f} s"
    if result.returncode == 0 and "rendered" in result.stdout:
        return True, backend
    lines = [line for line in result.stderr.splitlines() if line.strip()] or [f"exit code {result.returncode}"]
    return False, f"{backend}: {lines[-1]}"
