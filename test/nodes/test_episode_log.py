"""The figures of an episode, whose messages come in another thread."""

from __future__ import annotations

from typing import Any

import numpy as np

from specvla_ros.nodes.episode_log import EpisodeLog


class Talkative:
    """Statistics during whose reading others arrive."""

    decode_ms = 1.0

    def __init__(self, log: EpisodeLog) -> None:
        self._log = log

    @property
    def accept_length(self) -> float:
        late: Any = Talkative(self._log)
        self._log.stats_arrived(100 + len(self._log._stats), late)
        return 3.5


def test_statistics_that_arrive_while_the_figures_are_made_do_no_harm() -> None:
    log = EpisodeLog()
    for stamp in (1, 2, 3):
        stats: Any = Talkative(log)
        log.stats_arrived(stamp, stats)
    assert log.report(3, success=True, state=np.zeros(7))["accept_length"] == 3.5
