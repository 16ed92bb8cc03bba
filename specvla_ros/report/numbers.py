"""Columns of text as columns of numbers, for a program that reads a table."""

from __future__ import annotations

import re
from collections.abc import Sequence

ABSENT = "–"
"""In a cell whose figure nobody measured."""
NUMBER = r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)"
FORMS = {
    rf"{NUMBER}/{NUMBER}": ("", ", of"),
    rf"{NUMBER} - {NUMBER}(?: %)?": (", low", ", high"),
    rf"{NUMBER} / {NUMBER}": (", median", ", p95"),
    rf"\(?{NUMBER}\)?x?": ("",),
}
"""What cells look like, and what is added to the heading of each number in them."""
SEPARATOR = " / "
"""In a heading that names the two numbers of its cells."""


def as_numbers(heading: str, cells: Sequence[str]) -> list[tuple[str, list[str]]]:
    """A column whose cells all have one of the forms as a column for each number in them; any other one as it is.

    An absent figure is an empty cell.
    """
    present = [cell for cell in cells if cell != ABSENT]
    for form, endings in FORMS.items():
        if present and all(re.fullmatch(form, cell) for cell in present):
            named = heading.split(SEPARATOR)
            headings = named if len(named) == len(endings) > 1 else [heading + ending for ending in endings]
            found = [re.fullmatch(form, cell) for cell in cells]
            return [
                (name, [one[index] if one else "" for one in found]) for index, name in enumerate(headings, start=1)
            ]
    names = [heading] if present else heading.split(SEPARATOR)
    return [(name, ["" if cell == ABSENT else cell for cell in cells]) for name in names]
