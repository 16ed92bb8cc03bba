"""The page's frame: title, sections, style; everything it shows lies in the one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from specvla_ros.report.palette import drawing_rules, variables

STYLE = """
* { box-sizing: border-box }
body { margin: 0; background: var(--surface); color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
main { max-width: 74rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -.02em; margin: 0 0 .4rem }
h2 { font-size: 1.4rem; letter-spacing: -.01em; margin: 3.5rem 0 .6rem; padding-top: 1rem;
  border-top: 1px solid var(--rule) }
h3 { font-size: 1.05rem; margin: 2.2rem 0 .4rem }
p { max-width: 46rem; margin: .4rem 0 .9rem }
.note { color: var(--muted); font-size: .9rem }
.finding { border-left: 3px solid var(--teal); padding: .1rem 0 .1rem .8rem }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; padding: 0; margin: 1.2rem 0 0;
  font-size: .92rem }
a { color: var(--blue) }
.scroll { overflow-x: auto; margin: .8rem 0 }
table { border-collapse: collapse; font-size: .83rem; font-variant-numeric: tabular-nums; line-height: 1.35 }
th, td { text-align: right; padding: .38rem .36rem; border-bottom: 1px solid var(--rule); vertical-align: top }
th { color: var(--muted); font-weight: 600; vertical-align: bottom }
td:first-child, th:first-child { padding-left: 0 }
.text { text-align: left }
td:not(.text), .word { white-space: nowrap }
.foreign td { color: var(--muted); font-style: italic }
.foreign tr:first-child td { border-top: 2px solid var(--muted) }
figure { margin: 1rem 0 }
figure svg { display: block; max-width: 100%; height: auto }
figure svg text { font-family: system-ui, sans-serif !important }
figcaption { color: var(--muted); font-size: .9rem; margin-top: .3rem }
.films { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1.2rem }
.films figure { margin: 0 }
.films video, .camera { width: 100%; border-radius: 6px; display: block; background: var(--rule) }
.camera { max-width: 16rem }
pre { background: color-mix(in srgb, var(--rule) 35%, transparent); border-radius: 6px; padding: .8rem 1rem;
  overflow-x: auto; font-size: .84rem; white-space: pre-wrap; overflow-wrap: anywhere }
summary { cursor: pointer; color: var(--blue); margin: .8rem 0 }
@page { margin: 14mm }
@media print {
  body { font-size: 10.5pt }
  main { max-width: none; padding: 0 }
  nav, video, summary, section:has(.films) { display: none }
  details::details-content { content-visibility: visible; block-size: auto }
  .scroll { overflow: visible }
  .short { break-inside: avoid }
  thead { display: table-header-group; break-inside: avoid }
  table { font-size: 7.5pt }
  th, td { padding: .22rem .26rem }
  figure, tr, p, .camera { break-inside: avoid }
  h2, h3, h2 + p { break-after: avoid }
}
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and HTML."""

    title: str
    parts: Sequence[str]


def document(title: str, introduction: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page."""
    links = "".join(f'<li><a href="#{_anchor(one.title)}">{escape(one.title)}</a></li>' for one in sections)
    body = "".join(
        f'<section><h2 id="{_anchor(one.title)}">{escape(one.title)}</h2>{"".join(one.parts)}</section>\n'
        for one in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{variables()}{drawing_rules()}{STYLE}</style>\n"
        "</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(title)}</h1>{''.join(introduction)}<nav><ul>{links}</ul></nav></header>\n"
        f"{body}</main>\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    """Within a section."""
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str, kind: str = "") -> str:
    """A sentence or more; `note` is smaller, `finding` stands out."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def plot(svg: str, caption: str) -> str:
    """A drawing with what it shows below it."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def code(lines: Sequence[str]) -> str:
    """Commands."""
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def folded(summary: str, content: str) -> str:
    """Shown when it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def _anchor(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())
