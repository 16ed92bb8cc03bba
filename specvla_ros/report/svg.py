"""Matplotlib figures as SVG that lies inside the page: its text is text, its colours are the page's."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from specvla_ros.plotting import require_matplotlib
from specvla_ros.report.palette import INK, MUTED, RULE, SERIES, drawing_rules

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def style() -> Iterator[None]:
    """How the report's figures look; they must be drawn and written inside."""
    require_matplotlib("a drawing")
    import matplotlib
    from cycler import cycler

    settings: Any = {
        "axes.edgecolor": MUTED,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.labelcolor": INK,
        "axes.prop_cycle": cycler(color=SERIES),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": INK,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "figure.facecolor": "none",
        "font.size": 9,
        "grid.color": RULE,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
    }
    with matplotlib.rc_context(settings):
        yield


def inline_svg(figure: Figure, name: str) -> str:
    """An <svg> for the page; the same figure gives the same text."""
    import matplotlib

    text = io.StringIO()
    # Names inside one page must differ from figure to figure.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :].strip()
    return drawing.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)


def standalone_svg(inline: str) -> str:
    """A file of its own that follows a dark screen too."""
    end = inline.index(">") + 1
    css = f"{drawing_rules()}text {{ font-family: system-ui, sans-serif !important }}"
    return f"{inline[:end]}<style>{css}</style>{inline[end:]}\n"
