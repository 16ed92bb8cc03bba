"""The report's colours, on a light and on a dark screen; plots are drawn in the light ones."""

from __future__ import annotations

INK, MUTED, RULE, SURFACE = "#1f2933", "#66727f", "#d9dee4", "#ffffff"
BLUE, ORANGE, TEAL, VIOLET = "#2462a6", "#c0480d", "#0d766d", "#7b3fc4"
SERIES = (BLUE, ORANGE, TEAL, VIOLET)

NAMES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    SURFACE: "surface",
    BLUE: "blue",
    TEAL: "teal",
}
"""Of those that the page has beside its drawings."""
DARK = {
    INK: "#e4e8ed",
    MUTED: "#98a4b1",
    RULE: "#36404b",
    SURFACE: "#1a2028",
    BLUE: "#74b3f5",
    ORANGE: "#f5a15c",
    TEAL: "#52cfb6",
    VIOLET: "#bd9bf7",
}


def variables() -> str:
    """CSS that names the page's colours, `--ink` and so on; a dark screen has its own, and paper is always light."""
    light = "".join(f"--{name}: {colour}; " for colour, name in NAMES.items())
    dark = "".join(f"--{name}: {DARK[colour]}; " for colour, name in NAMES.items())
    return (
        f":root {{ color-scheme: light dark; {light}}}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n"
    )


def drawing_rules() -> str:
    """CSS by which a drawing in the light colours has the others on a dark screen.

    A drawing's own colours are plain: many programs that show or convert an SVG know no variables and would make
    everything black.
    """
    rules = "".join(
        f'[style*="{what}: {light}"] {{ {what}: {dark} !important }}\n'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    )
    return f"@media screen and (prefers-color-scheme: dark) {{\n{rules}}}\n"
