"""The page of a data check: findings, tables and examples with their labels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jalpose.report import album, page
from jalpose.report.page import Markup, Section
from jalpose.report.page_tables import as_markup
from jalpose.report.tables import Column, format_table
from jalpose.report.text_formats import Table
from jalpose.tasks.findings import Finding
from jalpose.tasks.overviews import Summary
from jalpose.tasks.pictures import Key


class Drawn(NamedTuple):
    """An example with its label.

    Attributes:
      picture: uint8 [H, W, 3].
      key: its name.
      lines: what is known of it.
    """

    picture: np.ndarray
    key: str
    lines: tuple[str, ...]


class Gallery(NamedTuple):
    """Examples under a heading; `words` say which they are."""

    anchor: str
    title: str
    words: str
    tiles: Sequence[Drawn]


def render(
    title: str,
    lead: str,
    findings: Sequence[Finding],
    summaries: Sequence[Summary],
    galleries: Sequence[Gallery],
    legend: Sequence[Key] | np.ndarray | None,
    terms: str = "",
) -> str:
    """The page.

    Args:
      title: its heading.
      lead: below it.
      findings: numbered as they stand.
      summaries: tables.
      galleries: those without an example are left out.
      legend: what lines and colours mean, as entries or drawn.
      terms: whose pictures they are.
    """
    sections = [Section("findings", "Findings", _findings(findings))]
    if summaries:
        tables = page.join(as_markup(as_table(one)) for one in summaries)
        sections.append(Section("holds", "What the data hold", tables))
    for gallery in galleries:
        if gallery.tiles:
            body = [
                page.paragraph(gallery.words),
                _legend(legend),
                page.tiles([_tile(one) for one in gallery.tiles], "tiles large"),
            ]
            if terms:
                body.append(page.paragraph(terms, class_="note terms"))
            sections.append(Section(gallery.anchor, gallery.title, page.join(body)))
    return page.render(title, page.paragraph(lead, class_="lead"), sections)


def as_table(summary: Summary) -> Table:
    """A summary as the report's tables are."""
    columns = tuple(
        Column(str(number), heading.format, heading.words)
        for number, heading in enumerate(summary.headings)
    )
    return Table(
        name=summary.name,
        caption=summary.caption,
        columns=columns,
        rows=tuple(
            {str(number): value for number, value in enumerate(row)}
            for row in summary.rows
        ),
        notes=summary.notes,
        groups=tuple(heading.group for heading in summary.headings),
    )


def as_text(summary: Summary) -> str:
    """A summary for the screen."""
    table = as_table(summary)
    columns = [
        column._replace(heading=heading)
        for column, heading in zip(table.columns, table.full_headings, strict=True)
    ]
    notes = "".join(f"{note}\n" for note in summary.notes)
    return f"{summary.caption}:\n{format_table(table.rows, columns)}{notes}"


def kind(finding: Finding) -> str:
    """How bad a finding is, in a word."""
    return "impossible" if finding.impossible else "unlikely"


def _findings(findings: Sequence[Finding]) -> Markup:
    if not findings:
        return page.paragraph("Nothing impossible and nothing unlikely was found.")
    lines = [
        page.element("li", page.element("strong", f"{kind(finding)}: "), finding.words)
        for finding in findings
    ]
    said = page.paragraph(
        "What is impossible, a run refuses; of what is unlikely it warns "
        "(data.check=warn)."
    )
    return page.join(
        [said, page.element("div", page.element("ol", *lines), class_="warnings")]
    )


def _tile(drawn: Drawn) -> Markup:
    encoded = album.encode(drawn.picture, photograph=True)
    image = page.zoom(page.picture(encoded.data, encoded.mime, drawn.key))
    return page.tile(image, drawn.key, *drawn.lines)


def _legend(legend: Sequence[Key] | np.ndarray | None) -> Markup:
    if legend is None:
        return page.join([])
    if isinstance(legend, np.ndarray):
        encoded = album.encode(legend, photograph=False)
        return page.picture(encoded.data, encoded.mime, "legend", legend.shape[1])
    return album.legend(legend)
