from __future__ import annotations

from specvla_ros.report.plots import Curve, Panel, draw_panels
from specvla_ros.report.svg import style


def test_no_two_curves_of_a_crowded_panel_look_alike() -> None:
    curves = [Curve(str(number), [0, 1], [number, number]) for number in range(9)]
    with style():
        (axes,) = draw_panels([Panel("success", "threshold", curves)]).axes
    looks = {(line.get_color(), line.get_marker()) for line in axes.lines}
    assert len(looks) == 9 and len({line.get_marker() for line in axes.lines[:4]}) == 4
