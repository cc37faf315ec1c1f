"""The contact sheet of a choice: one HTML page beside its pictures, nothing from afar.

What was chosen with what the model says of it and why, and what to do with it.
"""

import html
from collections.abc import Mapping, Sequence

from jalpose.tasks.exchange import Request

PAGE, TILES, LEGEND = "index.html", "tiles", "legend.png"
NARROW = 340  # pixels that a phone shows beside each other

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff;
  margin: 1.2rem auto; max-width: 1500px; padding: 0 1rem; }
h1 { font-size: 1.35rem; margin: 0 0 .4rem; }
ol, ol ul { padding-left: 1.3rem; } code { background: #f2f2f2; padding: 0 .2em; }
ul.sheet { list-style: none; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 230px), 1fr)); }
.sheet img { width: 100%; height: auto; display: block; background: #eee;
  margin-bottom: 3px; }
.sheet b { display: block; margin-top: .25rem; overflow-wrap: anywhere; }
.sheet span { display: block; color: #555; font-size: .86rem; overflow-wrap: anywhere; }
img.legend { max-width: 100%; height: auto; }
"""


_OF_A_RUN = """\
<li>Put what the tool exports into the folder <code>labels</code> of the run, two
folders up. Pictures that nobody can label: a text file there that begins with the line
<code>rejected</code>, and then has their names, one a line.</li>
<li>Run the same command again.</li>"""
_CLOSE = """
Where joints lie close together, they are shown once more, from near."""
_ONCE = """\
<li>What the tool exports are labels of the pictures in this folder, by their
names; <code>selection.csv</code> says which file of yours each is.</li>"""


def page(
    cycle: int | None,
    method: str,
    requests: Sequence[Request],
    tiles: Sequence[Sequence[str]],
    tools: Mapping[str, Sequence[str]],
    images: str,
) -> str:
    """The page of a cycle.

    Args:
      cycle: whose choice it is; None: of no run.
      method: that chose.
      requests: by rank.
      tiles: files of each one's pictures, in `TILES`: whole, and a close-up, if any.
      tools: names of the files beside the page, by the tool that takes them.
      images: folder of the images, "": they are where the data are.
    """
    cells = "\n".join(
        f'<li id="{one.id}">{_tiles(one, own, images)}<b>{one.rank}. {_text(one.name)}'
        f"</b><span>{_text(one.key)}</span><span>{_text(one.why)}</span></li>"
        for one, own in zip(requests, tiles, strict=True)
    )
    title = f"{len(requests)} images to label"
    if cycle is not None:
        title += f", cycle {cycle}"
    close = any(len(own) > 1 for own in tiles)
    where = (
        f"the images are in <code>{images}/</code>"
        if images
        else "the images are where the data are"
    )
    beside = "\n".join(
        f"<li>{_text(tool)}: {', '.join(map(_code, names))}</li>"
        for tool, names in tools.items()
        if names
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{_STYLE}</style></head><body>
<h1>{title}</h1>
<p>Chosen by {_text(method)}. Drawn is what the model says now; nobody has labelled
these yet.{_CLOSE if close else ""}</p>
<ol>
<li>Label them in the tool you use: {where}, and the model's guesses, to be corrected,
in the file for it:
<ul>
{beside}
</ul>
How each takes them is told in jalpose/oracles/README.md, "In the tools". Keep the names
of the pictures: labels are known again by them.</li>
{_ONCE if cycle is None else _OF_A_RUN}
</ol>
<p><img class="legend" src="{TILES}/{LEGEND}" alt="what lines and colours mean"></p>
<ul class="sheet">
{cells}
</ul>
</body></html>
"""


def _tiles(one: Request, files: Sequence[str], images: str) -> str:
    found = "".join(
        f'<img src="{TILES}/{_text(file)}" alt="{_text(one.key)}" loading="lazy">'
        for file in files
    )
    if not images:
        return found
    return f'<a href="{_text(images)}/{_text(one.name)}">{found}</a>'


def _code(name: str) -> str:
    return f"<code>{_text(name)}</code>"


def _text(words: str) -> str:
    return html.escape(words, quote=True)
