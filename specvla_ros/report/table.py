"""A table once, for the page, for a spreadsheet and for Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from specvla_ros.report.numbers import as_numbers

SHORT = 12
"""Rows of a table that stays on one page when it is printed; the head of a longer one is on each of its pages."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text.

    Attributes:
        name: of the files.
        headings: of the columns.
        rows: a cell for each heading.
        text_columns: how many of the first columns hold words; the others are numbers and stand to the right.
        foreign: how many of the last rows are somebody else's figures; they are set apart.
    """

    name: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    foreign: int = 0

    def html(self) -> str:
        """A <table> that scrolls sideways where the screen is narrow."""
        own = len(self.rows) - self.foreign
        body = f"<tbody>{self._html_rows(self.rows[:own])}</tbody>"
        if self.foreign:
            body += f'<tbody class="foreign">{self._html_rows(self.rows[own:])}</tbody>'
        head = self._html_row(self.headings, "th")
        kind = "scroll short" if len(self.rows) <= SHORT else "scroll"
        return f'<div class="{kind}"><table><thead>{head}</thead>{body}</table></div>'

    def markdown(self) -> str:
        """A GitHub table."""
        rule = [":--" if index < self.text_columns else "--:" for index in range(len(self.headings))]
        lines = [self.headings, rule, *self.rows]
        return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)

    def csv(self) -> str:
        """Comma-separated, the headings first, numbers bare; an absent figure is an empty cell."""
        columns = [
            column
            for heading, *cells in zip(self.headings, *self.rows, strict=True)
            for column in as_numbers(heading, cells)
        ]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([heading for heading, _ in columns])
        writer.writerows(zip(*(cells for _, cells in columns), strict=True))
        return text.getvalue()

    def _html_rows(self, rows: Sequence[Sequence[str]]) -> str:
        return "".join(self._html_row(row, "td") for row in rows)

    def _html_row(self, cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(self._html_cell(index, cell, tag) for index, cell in enumerate(cells))}</tr>"

    def _html_cell(self, index: int, cell: str, tag: str) -> str:
        # A threshold of seven numbers is one word, and is not broken.
        kind = "" if index >= self.text_columns else ' class="text"' if " " in cell else ' class="text word"'
        return f"<{tag}{kind}>{escape(cell)}</{tag}>"
