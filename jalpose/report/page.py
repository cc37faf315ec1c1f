"""One HTML file that needs nothing else: style, script and pictures are in it.

Text comes from records that anybody may have written: whatever is not markup made
here goes through `text` or `attribute`, and nothing is ever loaded from elsewhere.
"""

import base64
import dataclasses
import html
import math
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jalpose.storage.records import WorkdirError

_PACKAGE = "jalpose.report"
_WIDE = 620  # pixels of a plot from which on a phone scrolls rather than shrinks it
_LONG = 40  # rows of a table from which on it opens on a press
# How a page begins, whatever its version.
_START = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta http-equiv="Content-Security-Policy" content="'
)
# No script or picture from anywhere but this file, whatever a record smuggles in.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


class Markup(str):
    """HTML made here; any other string is text, to be escaped."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page with an entry in its table of contents."""

    anchor: str
    title: str
    body: Markup


@dataclasses.dataclass(frozen=True)
class Cell:
    """What a table shows, and what it sorts by where that is another thing."""

    shown: str | None
    value: float | None = None


def text(value: Any) -> Markup:
    """A value as text: markup as it is, everything else escaped, None as a dash."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape("-" if value is None else str(value), quote=True))


def join(parts: Iterable[Any], between: str = "") -> Markup:
    """Parts one after the other, each as `text` gives it."""
    return Markup(between.join(text(part) for part in parts))


def element(tag: str, *content: Any, **attributes: Any) -> Markup:
    """An element; `class_` and `data_x` are attributes `class` and `data-x`."""
    inside = join(content)
    return Markup(f"<{tag}{_attributes(attributes)}>{inside}</{tag}>")


def _attributes(attributes: dict[str, Any]) -> str:
    given = ((k, v) for k, v in attributes.items() if v is not None and v is not False)
    return "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{html.escape(str(value), quote=True)}"')
        for key, value in given
    )


def paragraph(*content: Any, class_: str | None = None) -> Markup:
    """A paragraph of text."""
    return element("p", *content, class_=class_)


def bullets(lines: Iterable[Any]) -> Markup:
    """A list, or nothing at all of no lines."""
    items = [element("li", line) for line in lines]
    return element("ul", *items) if items else Markup("")


def picture(
    data: bytes,
    mime: str,
    alt: str,
    width: int | None = None,
    class_: str | None = None,
) -> Markup:
    """An inlined picture."""
    source = f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
    given = {"src": source, "alt": alt, "width": width, "class_": class_}
    attributes = _attributes(given)
    return Markup(f"<img{attributes}>")


def drawing(svg: str, caption: Any, alt: str, files: Any = "") -> Markup:
    """A plot as `canvas.vector` gives it, with a caption and links to its files."""
    box, inside = svg.split(">", 1)
    size = [float(number) for number in re.findall(r"[\d.]+", box)[2:4]]
    # Inches of 72 points each are 100 pixels.
    width = round(size[0] * 100 / 72)
    opening = {"class_": "wide" if width > _WIDE else None, "width": width}
    opening |= {"role": "img", "aria_label": alt}
    image = Markup(f"{box}{_attributes(opening)}>{inside}")
    card = element("div", image, class_="card")
    return element("figure", card, element("figcaption", caption, files), class_="plot")


def named(name: str, colour: str) -> Markup:
    """The name of a method behind a spot of its colour."""
    dot = element("i", style=f"--dot: {colour}", class_="dot", aria_hidden="true")
    return element("span", dot, name, class_="named")


def links(paths: Iterable[str]) -> Markup:
    """Names of files beside the page as links to them."""
    return join((element("a", path, href=path) for path in paths), ", ")


def zoom(image: Markup) -> Markup:
    """A picture that a press makes as large as the screen, and another small again."""
    box = Markup('<input type="checkbox" aria-label="larger">')
    return element("label", box, image, class_="zoom")


def tile(image: Markup | None, title: Any, *lines: Any, kind: str = "") -> Markup:
    """A small picture and what is known of it."""
    shown = element("div", "no picture", class_="blank") if image is None else image
    said = [element("strong", title), *(element("span", line) for line in lines)]
    classes = f"tile {kind}".strip()
    return element("figure", shown, element("figcaption", *said), class_=classes)


def tiles(items: Iterable[Markup], class_: str = "tiles") -> Markup:
    """Pictures in rows, as many in one as the screen is wide."""
    return element("div", *items, class_=class_)


def table(
    columns: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    caption: Any = None,
    notes: Iterable[Any] = (),
) -> Markup:
    """A table that sorts by a press on a heading.

    Args:
      columns: headings.
      rows: of cells, numbers, text or None.
    """
    lines = [list(row) for row in rows]
    numeric = [
        any(_value(row[index]) is not None for row in lines)
        for index in range(len(columns))
    ]
    head = [
        element(
            "th",
            element("button", name, type="button"),
            scope="col",
            class_="number" if number else None,
        )
        for name, number in zip(columns, numeric, strict=True)
    ]
    body = [
        element("tr", *(_cell(c, n) for c, n in zip(row, numeric, strict=True)))
        for row in lines
    ]
    parts = [element("thead", element("tr", *head)), element("tbody", *body)]
    frame = element(
        "div",
        element("table", *parts, class_="sortable"),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=re.sub(r"\s+", " ", str(caption or "table")),
    )
    said = [element("div", note, class_="note") for note in notes]
    if len(lines) > _LONG:
        return details(f"{caption or 'Table'} ({len(lines)} rows)", frame, *said)
    # Not in the table: there a caption is no wider than the columns.
    above = [] if caption is None else [paragraph(caption, class_="caption")]
    return element("div", *above, frame, *said, class_="block")


def _cell(cell: Any, numeric: bool) -> Markup:
    value = _number(cell)
    shown = cell.shown if isinstance(cell, Cell) else cell
    if isinstance(shown, float):
        shown = None if math.isnan(shown) else f"{shown:.4g}"
    return element(
        "td",
        shown,
        class_="number" if numeric else None,
        data_value=None if value is None else repr(value),
    )


def _number(cell: Any) -> float | None:
    value = _value(cell)
    return value if value is not None and math.isfinite(value) else None


def _value(cell: Any) -> float | None:
    """The number that a cell holds, infinite or not."""
    value = cell.value if isinstance(cell, Cell) else cell
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def details(summary: Any, *content: Any) -> Markup:
    """A part that opens on a press."""
    return element("details", element("summary", summary), *content)


def render(
    title: str,
    lead: Any,
    sections: Sequence[Section],
    top: Any = "",
    reloads: int | None = None,
) -> str:
    """The page: heading, what stands on top, table of contents and sections.

    With `reloads` a browser reads it again every so many seconds.
    """
    style, script = (resource(name) for name in ("page_style.css", "page_script.js"))
    entries = [
        element("li", element("a", part.title, href=f"#{part.anchor}"))
        for part in sections
    ]
    contents = element("nav", element("ol", *entries), aria_label="Contents")
    parts = [
        element("section", element("h2", part.title), part.body, id=part.anchor)
        for part in sections
    ]
    policy = html.escape(_POLICY, quote=True)
    again = ""
    if reloads is not None:
        again = f'<meta http-equiv="refresh" content="{reloads}">\n'
    return (
        f'{_START}{policy}">\n'
        f"{again}"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"{element('header', element('h1', title), lead, top)}\n{contents}\n"
        f"{element('main', *parts)}\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def refuse_others(path: Path) -> None:
    """Raise WorkdirError where a page that is none of these would be written over."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            ours = file.read(len(_START)) == _START
    except FileNotFoundError:
        return
    if not ours:
        raise WorkdirError(
            f"{path} is there, and is no page of this command: nothing is written over "
            "it. Name another folder with --out, or move it away"
        )


def resource(name: str) -> str:
    """The text of a file beside this module."""
    return resources.files(_PACKAGE).joinpath(name).read_text("utf-8")
