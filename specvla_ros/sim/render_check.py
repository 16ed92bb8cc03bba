"""Whether this machine can render, tried in a process of its own because a broken driver takes its process with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light pos='0 0 3'/><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data)
    assert renderer.render().any(), "the image is black"
    from OpenGL.GL import GL_RENDERER, GL_VENDOR, glGetString
    print(*(glGetString(name).decode() for name in (GL_VENDOR, GL_RENDERER)))
"""


def render_check(timeout: float = 30.0) -> tuple[bool, str]:
    """True, the backend and OpenGL's vendor and renderer when an image came out; else False and the error."""
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
    if result.returncode == 0:
        return True, f"{backend}: {result.stdout.strip()}"
    # The first traceback's last line; what follows it comes from objects that were half made.
    errors = re.findall(r"^\w[\w.]*: .*|^AssertionError", result.stderr, re.MULTILINE)
    return False, f"{backend}: {errors[0] if errors else f'exit code {result.returncode}'}"
