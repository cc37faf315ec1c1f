"""The contact sheet of a choice: one HTML page beside its pictures, nothing from afar.

What was chosen with what the model says of it and why, and what to do with it.
"""

import html
from collections.abc import Sequence

from jalpose.tasks.exchange import Request

PAGE, TILES, LEGEND = "index.html", "tiles", "legend.png"

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff;
  margin: 1.2rem auto; max-width: 1500px; padding: 0 1rem; }
h1 { font-size: 1.35rem; margin: 0 0 .4rem; }
ol { padding-left: 1.3rem; } code { background: #f2f2f2; padding: 0 .2em; }
ul.sheet { list-style: none; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 230px), 1fr)); }
.sheet img { width: 100%; height: auto; display: block; background: #eee; }
.sheet b { display: block; margin-top: .25rem; overflow-wrap: anywhere; }
.sheet span { display: block; color: #555; font-size: .86rem; overflow-wrap: anywhere; }
img.legend { max-width: 100%; height: auto; }
"""


_OF_A_RUN = """\
<li>Put what the tool exports into the folder <code>labels</code> of the run, two
folders up. Pictures that nobody can label: a text file there that begins with the line
<code>rejected</code>, and then has their names, one a line.</li>
<li>Run the same command again.</li>"""
_ONCE = """\
<li>What the tool exports are labels of the pictures in this folder, by their
names; <code>selection.csv</code> says which file of yours each is.</li>"""


def page(
    cycle: int | None,
    method: str,
    requests: Sequence[Request],
    tiles: Sequence[str],
    files: Sequence[str],
    images: str,
) -> str:
    """The page of a cycle.

    Args:
      cycle: whose choice it is; None: of no run.
      method: that chose.
      requests: by rank.
      tiles: file of each one's picture, in `TILES`.
      files: that are beside the page.
      images: folder of the images, "": they are where the data are.
    """
    cells = "\n".join(
        f'<li id="{one.id}">{_tile(one, tile, images)}<b>{one.rank}. {_text(one.name)}'
        f"</b><span>{_text(one.key)}</span><span>{_text(one.why)}</span></li>"
        for one, tile in zip(requests, tiles, strict=True)
    )
    title = f"{len(requests)} images to label"
    if cycle is not None:
        title += f", cycle {cycle}"
    beside = ", ".join(f"<code>{_text(name)}</code>" for name in files)
    where = (
        f"the images are in <code>{images}/</code>"
        if images
        else "the images are where the data are"
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{_STYLE}</style></head><body>
<h1>{title}</h1>
<p>Chosen by {_text(method)}. Drawn is what the model says now; nobody has labelled
these yet.</p>
<ol>
<li>Label them in the tool you use: {where}; files for tools are {beside}. Keep the
names of the pictures: labels are known again by them.</li>
{_ONCE if cycle is None else _OF_A_RUN}
</ol>
<p><img class="legend" src="{TILES}/{LEGEND}" alt="what lines and colours mean"></p>
<ul class="sheet">
{cells}
</ul>
</body></html>
"""


def _tile(one: Request, tile: str, images: str) -> str:
    picture = f'<img src="{TILES}/{_text(tile)}" alt="{_text(one.key)}" loading="lazy">'
    if not images:
        return picture
    return f'<a href="{_text(images)}/{_text(one.name)}">{picture}</a>'


def _text(words: str) -> str:
    return html.escape(words, quote=True)
