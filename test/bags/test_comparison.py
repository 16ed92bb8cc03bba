"""Conditions on one bag's frames, with stand-ins for the model; the arithmetic of deviations."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_files import write_bag
from numpy.typing import NDArray
from rich.console import Console

from specvla_ros.bags.comparison import compare
from specvla_ros.bags.comparison_view import print_comparison, write_plot
from specvla_ros.bags.condition import Condition, Loaded, combine, load
from specvla_ros.bags.recording import Recording, Topics
from specvla_ros.errors import ConfigurationError
from specvla_ros.fake_policy import FakePolicy
from specvla_ros.nodes.bag import BagReader
from specvla_ros.policy import Action
from specvla_ros.runtime import OpenVLAPolicy

BAG = Path(__file__).parents[1] / "data" / "closed_loop"


class Off(FakePolicy):
    """Its z is so many bins below the fake policy's, and half as many units above; its ids end `shift` later."""

    def __init__(self, bins: int, shift: int) -> None:
        super().__init__()
        self._bins = bins
        self._shift = shift
        self.seen = 0

    def act(self, image: NDArray[np.uint8], instruction: str) -> Action:
        action = super().act(image, instruction)
        self.seen += 1
        tokens, values = list(action.tokens), action.values.copy()
        tokens[2] -= self._bins
        values[2] += 0.5 * self._bins
        return replace(action, tokens=tuple(token + self._shift for token in tokens), values=values)


class Loader:
    """Deviates by as many bins as the threshold; the checkpoint "wide" has 100 more ids and is not of LIBERO."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.policies: list[Off] = []

    def __call__(self, conditions: Sequence[Condition]) -> list[Loaded]:
        self.groups.append([one.checkpoint for one in conditions])
        shift = 100 if conditions[0].checkpoint == "wide" else 0
        policies = [Off(one.thresholds[0], shift) for one in conditions]
        self.policies += policies
        return [Loaded(policy, 32000 + shift, not shift) for policy in policies]


def compared(folder: Path, conditions: list[Condition], loader: Loader, limit: int = 0, **bag: Any) -> dict[str, Any]:
    with BagReader(write_bag(folder / "bag", **bag)) as reader:
        return compare(conditions, Recording(reader, Topics()), limit, loader)


def test_deviations_are_counted_by_dimension_in_bins_and_in_units(tmp_path: Path) -> None:
    report = compared(tmp_path, combine([""], ["hold"], [0, 4]), Loader())
    reference, relaxed = report["conditions"]
    assert report["frames"] == 5 and report["reference"] == "threshold 0"
    assert reference["frames_equal"] == 5 and reference["bins"]["max"] == [0] * 7
    assert relaxed["label"] == "threshold 4" and relaxed["frames_equal"] == 0
    for figure in ("mean", "p95", "max"):
        np.testing.assert_allclose(relaxed["bins"][figure], [0, 0, 4, 0, 0, 0, 0])
        # Two units of LIBERO's controller, which are 5 cm each.
        np.testing.assert_allclose(relaxed["units"][figure], [0, 0, 0.1, 0, 0, 0, 0], atol=1e-12)
    assert report["units"] == ["m", "m", "m", "rad", "rad", "rad", "0..1"]
    assert relaxed["accept_length"] == 3.5 and relaxed["milliseconds"]["p95"] >= relaxed["milliseconds"]["p50"] > 0


def test_of_a_controller_that_is_not_known_the_units_are_its_own(tmp_path: Path) -> None:
    report = compared(tmp_path, combine(["wide"], ["hold"], [0, 4]), Loader())
    np.testing.assert_allclose(report["conditions"][1]["units"]["max"], [0, 0, 2, 0, 0, 0, 0], atol=1e-12)
    assert report["units"] == ["unit"] * 6 + ["0..1"]


def test_checkpoints_of_different_vocabularies_are_compared_by_bin_and_loaded_one_after_the_other(
    tmp_path: Path,
) -> None:
    loader = Loader()
    report = compared(tmp_path, combine(["", "wide"], ["none", "hold"], [0]), loader)
    assert loader.groups == [["", ""], ["wide", "wide"]]
    assert [one["frames_equal"] for one in report["conditions"]] == [5] * 4
    assert report["conditions"][3]["label"] == "wide, draft hold, threshold 0"


def test_a_draft_forgets_what_was_before_an_instruction(tmp_path: Path) -> None:
    loader = Loader()
    compared(tmp_path, combine([""], ["hold"], [0, 4]), loader, instructions=[(0, "pick up"), (3, "put down")])
    assert [policy.resets for policy in loader.policies] == [2, 2]
    assert [policy.seen for policy in loader.policies] == [6, 6], "one to warm up, and five frames"


def test_the_first_frames_can_be_enough(tmp_path: Path) -> None:
    assert compared(tmp_path, combine([""], ["hold"], [0, 4]), Loader(), limit=2)["frames"] == 2


def test_one_condition_is_no_comparison() -> None:
    with pytest.raises(ConfigurationError, match="only one condition, draft none with threshold 0"):
        combine([""], ["none"], [0, 9])


def test_the_tables_and_the_plot_name_the_conditions(tmp_path: Path) -> None:
    report = compared(tmp_path, combine([""], ["hold"], [0, 4]), Loader())
    text = io.StringIO()
    print_comparison(report, Console(file=text, width=160))
    assert "threshold 4: deviation from threshold 0" in text.getvalue() and "0.1000" in text.getvalue()
    write_plot(report, tmp_path / "plots" / "comparison.svg")
    drawing = (tmp_path / "plots" / "comparison.svg").read_text()
    assert "deviation from threshold 0 [bins]" in drawing and "threshold 4" in drawing
    with pytest.raises(ConfigurationError, match=r"expected one of \.svg, \.png, \.pdf"):
        write_plot(report, tmp_path / "comparison.gif")


def test_without_matplotlib_a_plot_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')")
    command = [sys.executable, "-m", "specvla_ros.cli", "compare", str(BAG), "--threshold", "0", "--threshold", "3"]
    result = subprocess.run(
        [*command, "--frames", "1", "--plot", str(tmp_path / "plot.svg")],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1 and "plot.svg needs matplotlib" in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_the_policies_prepare_images_as_told() -> None:
    loaded, _ = load(combine([""], ["hold"], [0, 3]), "cpu", "auto", "", "centre_crop")
    assert isinstance(loaded.policy, OpenVLAPolicy) and loaded.policy.preparation == "centre_crop"
    words = "--threshold 0 --threshold 3 --image-preparation crop"
    command = [sys.executable, "-m", "specvla_ros.cli", "compare", str(BAG), *words.split()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1 and "'crop' is not one; expected auto, libero, centre_crop, none" in " ".join(
        result.stderr.split()
    )


def test_the_command_compares_thresholds_of_the_packages_own_model() -> None:
    command = [sys.executable, "-m", "specvla_ros.cli", "compare", str(BAG), "--threshold", "0", "--threshold", "255"]
    result = subprocess.run(
        [*command, "--frames", "10", "--json", "-"], capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    strict, relaxed = report["conditions"]
    assert report["frames"] == 10 and strict["frames_equal"] == 10 > relaxed["frames_equal"]
    assert relaxed["accept_length"] > strict["accept_length"]
