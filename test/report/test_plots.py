from __future__ import annotations

from specvla_ros.report.plots import Curve, Panel, draw_panels, draw_shares
from specvla_ros.report.svg import style


def test_no_two_curves_of_a_crowded_panel_look_alike() -> None:
    curves = [Curve(str(number), [0, 1, 2], [number] * 3) for number in range(9)]
    with style():
        (axes,) = draw_panels([Panel("success", "threshold", curves)]).axes
    looks = {(line.get_color(), line.get_marker()) for line in axes.lines}
    assert len(looks) == 9 and len({line.get_marker() for line in axes.lines[:4]}) == 4


def test_nothing_is_drawn_between_two_points_alone() -> None:
    several, two = (Curve(str(n), range(n), [0.5] * n, [0.4] * n, [0.6] * n) for n in (3, 2))
    with style():
        (axes,) = draw_panels([Panel("success", "threshold", [several, two])]).axes
    assert [line.get_linestyle() for line in axes.lines] == ["-", "None"]
    band, bars = axes.collections
    assert len(band.get_paths()) == 1 and len(bars.get_paths()) == 2, "a band, and a bar at each of the two points"


def test_a_share_that_cannot_be_is_not_called_zero() -> None:
    with style():
        (axes,) = draw_shares([("hold", (None, 0.0, 1.0))], "xyz", "token").axes
    assert [text.get_text() for text in axes.texts] == ["–", "0%", "100%"] and len(axes.patches) == 2
