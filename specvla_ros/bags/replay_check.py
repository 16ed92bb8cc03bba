"""`specvla replay-check`: does the policy node answer a bag's images with the tokens that were recorded?"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from specvla_ros.bags.origin import changes
from specvla_ros.bags.player import REMAPPINGS, playing
from specvla_ros.bags.recording import Recording, Topics
from specvla_ros.demo import node_process, require_success, with_checkpoint
from specvla_ros.errors import BagError, SimulationError
from specvla_ros.msg import EndEffectorCommand
from specvla_ros.nodes.bag import BagReader
from specvla_ros.policy import ACTION_DIMENSIONS

POLICY = "policy_node"
SHOWN = 20
"""Differences on the screen; all of them are in the report."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One token that is not as recorded.

    Attributes:
        frame: index of the image in the bag, from 0.
        position: of the token in its action, from 0.
        recorded, replayed: token ids.
        bins: distance between them.
    """

    frame: int
    position: int
    dimension: str
    recorded: int
    replayed: int
    bins: int


def replay_check(
    bag: Path, topics: Topics, policy: Mapping[str, Any], fast: bool, instruction: str = ""
) -> dict[str, Any]:
    """Start a policy node, feed it the bag, compare.

    Args:
        policy: parameters of the node; thresholds and image transport are the bag's.
        fast: only the images that have a recorded command, each as soon as the one before is answered; otherwise all
            at the bag's pace, where a node that is too slow skips some.
        instruction: see `Recording`.

    Raises:
        BagError: the bag lacks something, or the node does not answer.
        CheckpointError: the checkpoint is not to be had.
        SimulationError: the node ended.
    """
    with BagReader(bag) as reader, TemporaryDirectory() as logs:
        recording = Recording(reader, topics, instruction)
        commands = recording.commands()
        # The stamps of the images are read now: they are replaced as the images are shown.
        recorded = {frame.index: commands[frame.stamp] for frame in recording.frames() if frame.stamp in commands}
        if not recorded:
            raise BagError(f"none of the {len(commands)} commands in {bag} bears the stamp of one of its images")
        thresholds = _thresholds(recorded)
        parameters = {
            **with_checkpoint(policy),
            "thresholds": thresholds,
            "image_transport": "compressed" if recording.is_compressed else "raw",
            "max_image_age": 0.0,
        }
        with node_process(POLICY, "policy.yaml", parameters, Path(logs), REMAPPINGS) as child:

            def require_alive() -> None:
                if child.poll() is not None:
                    _raise_ended(child, Path(logs))

            with playing(recording.is_compressed, require_alive) as player:
                if fast:
                    answers = {f.index: player.ask(f) for f in recording.frames() if f.index in recorded}
                else:
                    answers = player.play(recording.frames())
        both = {index: (command, answers[index]) for index, command in recorded.items() if index in answers}
        if not both:
            raise BagError("the policy node answered none of the images at the bag's pace; wait for it: --fast")
        found = [one for index, pair in both.items() for one in differences(index, *pair)]
        return {
            "bag": str(bag),
            "policy": dict(policy),
            "thresholds": thresholds,
            "fast": fast,
            "images": recording.image_count,
            "frames_recorded": len(recorded),
            "frames_compared": len(both),
            "differences": [asdict(one) for one in found],
            "changes": changes(bag, policy.get("checkpoint", "")) if found else [],
        }


def differences(frame: int, recorded: EndEffectorCommand, replayed: EndEffectorCommand) -> list[Difference]:
    """Token by token."""
    pairs = zip(ACTION_DIMENSIONS, map(int, recorded.tokens), map(int, replayed.tokens), strict=True)
    return [
        Difference(frame, position, dimension, before, after, abs(before - after))
        for position, (dimension, before, after) in enumerate(pairs)
        if before != after
    ]


def print_check(report: dict[str, Any], console: Console) -> None:
    """The differences and what they may come from, or that there is none."""
    found: Sequence[dict[str, Any]] = report["differences"]
    compared, recorded = report["frames_compared"], report["frames_recorded"]
    if found:
        table = Table("frame", "token", "dimension", "recorded", "replayed", "bins apart", title="not as recorded")
        for row in found[:SHOWN]:
            table.add_row(*map(str, row.values()))
        console.print(table)
        if len(found) > SHOWN:
            console.print(f"and {len(found) - SHOWN} more")
    tokens = compared * len(ACTION_DIMENSIONS)
    console.print(
        f"{compared} of {recorded} recorded actions compared, {tokens} tokens: "
        + (f"{len(found)} differ, in {len({row['frame'] for row in found})} frames" if found else "all as recorded"),
        highlight=False,
    )
    if compared < recorded:
        console.print("The node skipped the other images at the bag's pace, or lost them; --fast waits for each.")
    for sentence in report["changes"]:
        console.print(sentence, highlight=False, soft_wrap=True)
    if found and any(report["thresholds"]):
        console.print("Above threshold 0 the tokens also depend on the draft and on which images were decoded before.")


def _thresholds(recorded: Mapping[int, EndEffectorCommand]) -> list[int]:
    """Of all commands.

    Raises:
        BagError: they changed.
    """
    several = {tuple(map(int, command.thresholds)) for command in recorded.values()}
    if len(several) > 1:
        raise BagError(
            f"thresholds changed during the recording: {', '.join(str(list(one)) for one in sorted(several))}; record "
            "with one, or compare conditions on the bag's images with specvla compare"
        )
    return list(several.pop())


def _raise_ended(child: subprocess.Popen[bytes], logs: Path) -> None:
    require_success(child, POLICY, logs)
    raise SimulationError(f"{POLICY} ended before the bag did")
