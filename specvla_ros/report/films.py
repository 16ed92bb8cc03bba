"""A success and a failure of each task, small enough to lie in the page."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.rollout import EpisodeResult
from specvla_ros.evaluation.runs import Run
from specvla_ros.sim.video import require_imageio

VIDEOS = "videos"
EMBEDDED = 1_000_000
"""Bytes of the largest film that is put into the page; a larger one lies beside it."""
QUALITY = 5


@dataclass(frozen=True, slots=True)
class Film:
    """A filmed episode; `source` is what a <video> shows, `size` its bytes."""

    run: Run
    episode: EpisodeResult
    source: str
    size: int


def choose_films(runs: Sequence[Run]) -> list[tuple[Run, EpisodeResult, Path]]:
    """For each task of each suite the first filmed success and the first filmed failure."""
    chosen: dict[tuple[str, int, bool], tuple[Run, EpisodeResult, Path]] = {}
    for run in runs:
        for episode in sorted(run.episodes, key=lambda one: one.episode):
            path = film_path(run.folder, episode)
            if path.is_file():
                chosen.setdefault((episode.suite, episode.task, not episode.success), (run, episode, path))
    return [chosen[key] for key in sorted(chosen)]


def unfilmed_failures(runs: Sequence[Run]) -> dict[Run, list[EpisodeResult]]:
    """A failure of each task that has some and no film of one: the first in lockstep, and by evaluation."""
    filmed = {episode.task for _, episode, _ in choose_films(runs) if not episode.success}
    failed: dict[int, list[tuple[Run, EpisodeResult]]] = {}
    for run in runs:
        for episode in run.episodes:
            if not episode.success and episode.task not in filmed:
                failed.setdefault(episode.task, []).append((run, episode))
    first: dict[Run, list[EpisodeResult]] = {}
    for _, failures in sorted(failed.items()):
        run, episode = min(failures, key=lambda one: (one[0].realtime, one[1].episode))
        first.setdefault(run, []).append(episode)
    return first


def film_path(folder: Path, episode: EpisodeResult) -> Path:
    """Where an evaluation puts an episode's film (`EvaluationOptions.film`)."""
    return folder / VIDEOS / f"{episode.suite}_task{episode.task:02d}_episode{episode.episode:02d}.mp4"


def make_films(runs: Sequence[Run], output: Path) -> list[Film]:
    """Shrink the chosen films; those that are still large are written to the output folder's videos.

    Raises:
        ConfigurationError: one of them is no film, as where copying it was broken off, or see `require_imageio`.
    """
    films, chosen = [], choose_films(runs)
    if chosen:
        require_imageio()
    for run, episode, path in chosen:
        try:
            content = shrink(path)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read as a film; delete it to leave it out") from error
        source = "data:video/mp4;base64," + base64.b64encode(content).decode()
        if len(content) > EMBEDDED:
            source = f"{VIDEOS}/{run.folder.name}_{path.name}"
            (output / VIDEOS).mkdir(parents=True, exist_ok=True)
            (output / source).write_bytes(content)
        films.append(Film(run, episode, source, len(content)))
    return films


def shrink(path: Path) -> bytes:
    """The same film at half its height and width, which is the camera's own size."""
    import imageio.v2 as imageio

    reader: Any = imageio.get_reader(path)
    with tempfile.TemporaryDirectory() as folder, closing(reader):
        small, rate = Path(folder) / "small.mp4", reader.get_meta_data()["fps"]
        writer: Any = imageio.get_writer(small, fps=rate, codec="libx264", quality=QUALITY, macro_block_size=2)
        with closing(writer):
            for frame in reader:
                writer.append_data(cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        return small.read_bytes()
