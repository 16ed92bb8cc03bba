"""The set-up by make, with commands that only pretend to install."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"
INTERPRETER = "#!/bin/sh\n[ $3 = --version ] && exit\necho begin >> log\nsleep 0.1\necho end >> log\n"
"""Of an environment: notes what it installs."""
SOURCED = {
    "AMENT_PREFIX_PATH": "/opt/ros/jazzy",
    "CMAKE_PREFIX_PATH": "/opt/ros/jazzy",
    "LD_LIBRARY_PATH": "/opt/ros/jazzy/lib",
    "PYTHONPATH": "/opt/ros/jazzy/lib/python3.12/site-packages",
    "RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp",
}

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the Makefile reads; its Python makes an environment of `INTERPRETER`."""
    shutil.copy(MAKEFILE, tmp_path)
    for name in ("setup.py", "pyproject.toml", "CMakeLists.txt", "package.xml", "constraints.txt"):
        (tmp_path / name).touch()
    (tmp_path / "requirements-libero.txt").touch()
    script(tmp_path / "scripts" / "check_system", "#!/bin/sh\n")
    (tmp_path / "interpreter").write_text(INTERPRETER)
    script(
        tmp_path / "python",
        "#!/bin/sh\nmkdir -p .venv/bin\ncp interpreter .venv/bin/python\nchmod +x .venv/bin/python\n",
    )
    return tmp_path


def script(path: Path, text: str) -> None:
    """An executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def start_make(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Make in that folder, with nothing of this process's environment."""
    return subprocess.Popen(
        ["make", "TORCH_ARGS=", "PYTHON=./python", *arguments],
        cwd=folder,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_an_environment_that_was_interrupted_before_it_had_pip_is_made_again(checkout: Path) -> None:
    script(checkout / ".venv" / "bin" / "python", "#!/bin/sh\nexit 1\n")
    make = start_make(checkout, "venv")
    assert make.wait(20) == 0, make.communicate()[0]
    assert (checkout / ".venv" / ".installed").exists()


def test_two_makes_at_once_install_once(checkout: Path) -> None:
    makes = [start_make(checkout, "venv") for _ in range(2)]
    assert [make.wait(20) for make in makes] == [0, 0]
    log = (checkout / "log").read_text().split()
    assert log == ["begin", "end"] * (len(log) // 2)
    assert len(log) // 2 == 5


def test_a_sourced_ros_does_not_reach_into_the_environment(checkout: Path) -> None:
    make = start_make(checkout, "-s", "--eval=shown:\n\t@env", "shown", **SOURCED)
    shown = dict(line.split("=", 1) for line in make.communicate(timeout=20)[0].splitlines())
    assert not shown.keys() & SOURCED.keys()


def test_without_a_sourced_ros_the_users_libraries_stay(checkout: Path) -> None:
    make = start_make(checkout, "-s", "--eval=shown:\n\t@env", "shown", LD_LIBRARY_PATH="/opt/cuda/lib")
    assert "LD_LIBRARY_PATH=/opt/cuda/lib" in make.communicate(timeout=20)[0].splitlines()
