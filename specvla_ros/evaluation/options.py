"""What an evaluation runs, and which of it decides its results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.latency import LOCKSTEP, parse_latency
from specvla_ros.policy import PLAIN, expand_thresholds
from specvla_ros.shipped import checkpoint_directory
from specvla_ros.sim.holding import HOLD_TIME
from specvla_ros.sim.libero import Task
from specvla_ros.vla.fingerprint import settings_mark, weights_mark


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """Options of an evaluation.

    Attributes:
        suite: of LIBERO.
        output: folder of the episodes' results, the summary and the videos.
        tasks: indices in the suite; empty is all of them.
        trials: initial states 0 .. trials - 1 of each task, of 50.
        max_steps: an episode ends after so many; 0 is OpenVLA's limit for the suite.
        checkpoint, draft, threshold, device, dtype, weights: see `specvla_ros.load_policy`; the empty checkpoint is the
            package's own.
        latency: of a command in simulated time, see `parse_latency`.
        latency_source: of an emulated delay, the benchmark that it was taken from; decides nothing.
        hold_time: simulated seconds that a command holds in real time, counted from its frame.
        fast_rendering: for a policy that was trained with it; a published checkpoint needs the stock picture.
        image_size: height and width of the camera image in pixels.
        seed: of what an initial state does not hold, the same for every episode: a result depends neither on the order
            nor on the number of workers.
        workers: processes, each with a scene of its own.
        one_policy: one model in the parent process decides for all workers, as on a GPU; else each has its own.
        videos: so many episodes of each task are filmed, the first ones.
        ros: through the policy node and the LIBERO bridge, one episode after the other.
    """

    suite: str
    output: Path
    tasks: tuple[int, ...] = ()
    trials: int = 20
    max_steps: int = 0
    checkpoint: str = ""
    draft: str = PLAIN
    threshold: int | tuple[int, ...] = 0
    device: str = "auto"
    dtype: str = "auto"
    weights: str = "full"
    latency: str = LOCKSTEP
    latency_source: str = ""
    hold_time: float = HOLD_TIME
    fast_rendering: bool = False
    image_size: int = 256
    seed: int = 0
    workers: int = 1
    one_policy: bool = False
    videos: int = 0
    ros: bool = False

    def __post_init__(self) -> None:
        expand_thresholds(self.threshold)
        parse_latency(self.latency)
        for name, least in (("trials", 1), ("max_steps", 0), ("hold_time", 0), ("workers", 1), ("videos", 0)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; expected at least {least}")
        if self.ros and self.realtime:
            raise ConfigurationError(
                f"latency {self.latency} is simulated in this process; through the nodes give lockstep, and for real "
                "time: ros2 launch specvla_ros sim.launch.py mode:=realtime"
            )

    @property
    def realtime(self) -> bool:
        """Whether the scene moves on while the policy thinks."""
        return self.latency != LOCKSTEP

    @property
    def checkpoint_directory(self) -> Path:
        """Where the checkpoint lies; a hub name is downloaded, the first time."""
        return checkpoint_directory(self.checkpoint).resolve()

    @property
    def draft_directories(self) -> list[Path]:
        """Where the learned drafts lie; a hub name is downloaded, the first time.

        Raises:
            ConfigurationError: there is no such draft.
        """
        from specvla_ros.speculative.build import locate_drafts

        return [draft for draft in locate_drafts(self.draft, self.checkpoint_directory).values() if draft]

    def film(self, task: Task, episode: int) -> Path:
        """Where an episode's film lies."""
        return self.output / "videos" / f"{task.suite}_task{task.index:02d}_episode{episode:02d}.mp4"

    def swept(self) -> dict[str, Any]:
        """What a sweep varies, for JSON."""
        return {
            "suite": self.suite,
            "draft": self.draft,
            "threshold": self.threshold if isinstance(self.threshold, int) else list(self.threshold),
            "mode": "realtime" if self.realtime else LOCKSTEP,
            "latency": self.latency,
            "seed": self.seed,
        }

    def conditions(self) -> dict[str, Any]:
        """What an episode's result depends on; which episodes are run, and by how many workers, is no part of it.

        Raises:
            ConfigurationError: there is no such device or type, or no such draft.
        """
        from specvla_ros.runtime import select_device, select_dtype

        directory, drafts = self.checkpoint_directory, self.draft_directories
        device = select_device(self.device)
        return {
            **self.swept(),
            "checkpoint": str(directory),
            "device": device.type,
            "dtype": str(select_dtype(self.dtype, device)).removeprefix("torch."),
            "weights": self.weights,
            "hold_time": self.hold_time,
            "max_steps": self.max_steps,
            "fast_rendering": self.fast_rendering,
            "image_size": self.image_size,
            "ros": self.ros,
            "fingerprint": weights_mark([directory, *drafts]),
            "settings": settings_mark([directory]),
            "draft_settings": settings_mark(drafts),
        }
