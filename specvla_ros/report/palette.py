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
    ORANGE: "orange",
    TEAL: "teal",
    VIOLET: "violet",
}
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
    """CSS that gives every colour a name, `--ink` and so on, and the dark screen its own; paper is always light."""
    light = "".join(f"--{name}: {colour}; " for colour, name in NAMES.items())
    dark = "".join(f"--{name}: {DARK[colour]}; " for colour, name in NAMES.items())
    return (
        f":root {{ color-scheme: light dark; {light}}}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n"
    )


def with_variables(svg: str) -> str:
    """An SVG's colours by their names, so that it follows the page."""
    for colour, name in NAMES.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg
