"""Tables and drawings on their way to the page; each is also kept for a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from specvla_ros.report.page import folded, plot
from specvla_ros.report.svg import inline_svg, standalone_svg, style
from specvla_ros.report.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONG = 12
"""Rows of a table that is folded away."""


class Sheet:
    """Collects what the sections show."""

    def __init__(self) -> None:
        self._tables: list[Table] = []
        self._drawings: dict[str, str] = {}

    def table(self, table: Table) -> str:
        """HTML for the page."""
        self._tables.append(table)
        return table.html()

    def long_table(self, table: Table, what: str) -> str:
        """HTML for the page, folded when it is long."""
        html = self.table(table)
        return folded(f"{what} ({len(table.rows)} rows)", html) if len(table.rows) > LONG else html

    def drawing(self, name: str, draw: Callable[[], Figure], caption: str) -> str:
        """HTML for the page, with the report's style."""
        with style():
            svg = inline_svg(draw(), name)
        self._drawings[name] = svg
        return plot(svg, caption)

    def write(self, folder: Path) -> None:
        """Every table as CSV and Markdown, every drawing as SVG."""
        for table in self._tables:
            (folder / f"{table.name}.csv").write_text(table.csv())
            (folder / f"{table.name}.md").write_text(table.markdown())
        for name, svg in self._drawings.items():
            (folder / f"{name}.svg").write_text(standalone_svg(svg))
