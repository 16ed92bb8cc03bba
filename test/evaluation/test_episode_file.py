from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from stand_ins import result

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.episode_file import EpisodeFile

CONDITIONS = {"suite": "libero_object", "threshold": 3}


def filled(folder: Path) -> Path:
    with EpisodeFile(folder, CONDITIONS) as file:
        file.append(result(0, 0))
        file.append(result(0, 1))
    return folder / "episodes.jsonl"


def test_what_was_appended_is_there_the_next_time(tmp_path: Path) -> None:
    filled(tmp_path / "new" / "folder")
    with EpisodeFile(tmp_path / "new" / "folder", CONDITIONS) as file:
        assert file.results == [result(0, 0), result(0, 1)]


def test_an_episode_is_on_the_disk_before_the_next_one(tmp_path: Path) -> None:
    with EpisodeFile(tmp_path, CONDITIONS) as file:
        file.append(result(0, 0))
        assert file.path.read_text().count("\n") == 1


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_line_cut_short_is_dropped_and_the_next_one_is_whole(tmp_path: Path, kept: int) -> None:
    path = filled(tmp_path)
    first, second, _ = path.read_text().split("\n")
    path.write_text(first + "\n" + (second + "\n")[:kept])
    with EpisodeFile(tmp_path, CONDITIONS) as file:
        assert file.results == [result(0, 0)]
        file.append(result(0, 2))
    with EpisodeFile(tmp_path, CONDITIONS) as file:
        assert file.results == [result(0, 0), result(0, 2)]


def test_options_that_differ_are_refused_and_named(tmp_path: Path) -> None:
    path = filled(tmp_path)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="threshold is 3 there and 5 now") as caught:
        EpisodeFile(tmp_path, {**CONDITIONS, "threshold": 5})
    assert "suite" not in str(caught.value) and path.read_bytes() == before


def test_a_line_in_the_middle_that_is_no_result_is_not_passed_over(tmp_path: Path) -> None:
    path = filled(tmp_path)
    path.write_text('{"task": 0}\n' + path.read_text())
    with pytest.raises(ConfigurationError, match="line 1 of"):
        EpisodeFile(tmp_path, CONDITIONS)


def test_options_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "options.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"options\.json cannot be read"):
        EpisodeFile(tmp_path, CONDITIONS)


def test_two_evaluations_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with EpisodeFile(tmp_path, CONDITIONS), pytest.raises(ConfigurationError, match="another evaluation is writing"):
        EpisodeFile(tmp_path, CONDITIONS)


def test_a_file_system_without_locks_is_not_called_another_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: object, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ConfigurationError, match=r"cannot be locked .*\(Function not implemented\); choose an output"):
        EpisodeFile(tmp_path, CONDITIONS)
