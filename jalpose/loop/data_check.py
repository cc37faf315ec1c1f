"""The data of a config looked through before anything is trained on them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jalpose.data import inventory
from jalpose.data.dataset import Dataset
from jalpose.data.source import DataError
from jalpose.loop import configs, run
from jalpose.report import data_page
from jalpose.report.data_page import Drawn, Gallery
from jalpose.report.page import refuse_others
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.storage import records
from jalpose.tasks import registry
from jalpose.tasks.findings import Finding
from jalpose.tasks.labels import Labels
from jalpose.tasks.overviews import Heading, Overview, Summary

SHOWN, SUSPICIOUS = 12, 24  # pictures
PAGE = "index.html"
_PARTLY = (
    "It cannot be opened as a run would: what can be read of it is shown, and is in no "
    "part"
)


def check(
    config: ConfigDict,
    out: str,
    screen: Screen | None = None,
    *,
    pictures: bool = True,
) -> list[Finding]:
    """Open the data of a config, print and write what they hold: what is wrong.

    Args:
      config: of a run.
      out: folder of the page.
      screen: to print on.
      pictures: the page has pictures of examples.

    Raises:
      ConfigError: a value is not allowed.
      WorkdirError: nothing can be written.
    """
    screen = screen or Screen()
    configs.check(config)
    records.check_workdir(out)
    refuse_others(Path(out) / PAGE)
    opened = _open(config, screen)
    dataset, found = opened.dataset, list(opened.refusals)
    summaries: list[Summary] = []
    galleries: list[Gallery] = []
    legend, terms = None, ""
    if dataset is not None:
        labels = _labels(config, dataset, found) if opened.whole else None
        about = registry.overview_of(config.task)
        overview = None if about is None else about.overview(config, dataset)
        if overview is not None:
            told = {finding.words for finding in found}
            found += [f for f in overview.findings if f.words not in told]
        found.sort(key=lambda finding: not finding.impossible)
        summaries.append(_counts(dataset, _labelled(dataset, labels, overview)))
        if overview is not None:
            summaries += overview.tables
        if pictures:
            painter = _Painter(dataset, labels, overview, screen)
            galleries = _galleries(dataset, found, painter)
            legend, terms = painter.legend, _terms(config)
    for summary in summaries:
        screen.line(data_page.as_text(summary))
    for number, finding in enumerate(found, start=1):
        screen.line(f"{number}. {data_page.kind(finding)}: {finding.words}")
    bad = sum(finding.impossible for finding in found)
    verdict = f"{bad} impossible, {len(found) - bad} unlikely"
    if dataset is not None and not opened.whole:
        verdict += f". {_PARTLY}"
    title = f"Data of {config.name}"
    lead = f"data.name={config.data.name}, data.dir={config.data.get('dir', '')}: "
    text = data_page.render(
        title, lead + verdict, found, summaries, galleries, legend, terms
    )
    page = Path(out) / PAGE
    records.atomic_write_text(page, text)
    screen.line(f"findings: {verdict}; page: {page}")
    return found


class _Opened(NamedTuple):
    """What could be opened, why not all, and is it what a run would have?"""

    dataset: Dataset | None
    refusals: tuple[Finding, ...]
    whole: bool


def _open(config: ConfigDict, screen: Screen) -> _Opened:
    """The data set, unchecked, and what a run would have refused on the way.

    What is damaged is refused, told, and left out. Where that is not all that is wrong,
    what can be read is taken by itself.
    """
    ours = ConfigDict(config.to_dict())
    words: dict[str, None] = {}
    ours.data.check, ours.data.packed = "off", False
    ours.data.encoder.name = ""  # images themselves are looked at
    screen.line(f"opening the data: data.name={ours.data.name}")

    def refusals():
        return tuple(Finding(one, impossible=True) for one in words)

    for damaged in dict.fromkeys([ours.data.damaged, "leave_out"]):
        ours.data.damaged = damaged
        try:
            return _Opened(run.load_dataset(ours), refusals(), whole=True)
        except DataError as error:
            words[str(error)] = None
    readable = getattr(registry.sources_of(config.task), "readable", None)
    if readable is None:
        return _Opened(None, refusals(), whole=False)
    dataset, problems = readable(ours.data)
    words |= dict.fromkeys(map(str, problems))
    return _Opened(dataset, refusals(), whole=False)


def _labels(
    config: ConfigDict, dataset: Dataset, found: list[Finding]
) -> Labels | None:
    """The labels; None, and a finding more, where a run would refuse them."""
    try:
        return registry.labels_of(config.task).make_labels(config, dataset)
    except ConfigError as error:
        found.append(Finding(str(error), impossible=True))
        return None


def _labelled(
    dataset: Dataset, labels: Labels | None, overview: Overview | None
) -> np.ndarray | None:
    """Which examples have a label: bool [N]; None where nobody knows."""
    if overview is not None:
        return overview.labelled
    return None if labels is None else labels.known(dataset.truth)


def _counts(dataset: Dataset, labelled: np.ndarray | None) -> Summary:
    """How many images and examples of what sizes there are."""
    sizes, rows, guessed = inventory.sizes(dataset), [], False
    files = np.array(dataset.files)
    for group in inventory.groups(dataset):
        own = sizes[group.ids]
        known = own[~np.isnan(own).any(axis=1)]
        guessed |= len(known) < len(own)
        low, middle, high = (
            tuple(np.round(f(known, axis=0)).astype(int).tolist())
            for f in (np.min, np.median, np.max)
        )
        reaching = share = None
        if dataset.windows is not None:
            count = int(inventory.beyond(dataset.windows[group.ids], own).sum())
            reaching = count if len(known) == len(own) else None
            share = 100 * count / len(known)
        rows.append(
            (
                group.set,
                group.part,
                len(group.ids),
                len(np.unique(files[group.ids])),
                None if labelled is None else int(labelled[group.ids].sum()),
                *(f"{width}x{height}" for width, height in (low, middle, high)),
                reaching,
                share,
            )
        )
    notes = [
        f"{name.upper()}: {note}."
        for source, name in zip(dataset.sources, inventory.names(dataset), strict=True)
        for note in getattr(source, "notes", ())
    ]
    if dataset.windows is not None:
        notes.append(
            "What of a window lies beyond its image is black in the crop: usual where "
            "people fill their images."
        )
    measured = (
        "Where a set keeps no sizes, they are those of at most "
        f"{inventory.MEASURED} images of a part, evenly spaced."
    )
    return Summary(
        name="counts",
        caption="Examples and images; widths and heights in pixels, each by itself",
        headings=(
            Heading("set"),
            Heading("part"),
            Heading("examples", "d"),
            Heading("images", "d"),
            Heading("with a label", "d"),
            Heading("least"),
            Heading("median"),
            Heading("largest"),
            Heading("windows beyond the image", "d"),
            Heading("windows beyond, %", ".0f"),
        ),
        rows=tuple(rows),
        notes=(*notes, measured) if guessed else tuple(notes),
    )


class _Painter:
    """Draws examples with their labels; those that cannot be drawn are left out."""

    def __init__(self, dataset, labels, overview, screen):
        self._dataset, self._labels, self._overview = dataset, labels, overview
        self._screen = screen

    @property
    def legend(self):
        """What lines and colours mean; None where nothing is drawn."""
        if self._overview is not None:
            return self._overview.legend
        return None if self._labels is None else self._labels.legend(800)

    def draw(self, examples: Iterable[int], lines: Mapping[int, tuple[str, ...]]):
        """Pictures of examples, with what is said of each."""
        found, ids = [], list(examples)
        for number, example in enumerate(ids, start=1):
            picture = self._picture(example)
            if picture is not None:
                said = lines.get(example, ())
                found.append(Drawn(picture, self._dataset.keys[example], said))
            self._screen.progress("drawing", number, len(ids))
        self._screen.end()
        return found

    def _picture(self, example: int) -> np.ndarray | None:
        data = self._dataset
        window = None if data.windows is None else data.windows[example]
        truth = {n: np.asarray(values[example]) for n, values in data.truth.items()}
        image = data.image(example)
        if self._overview is not None:
            return self._overview.draw(image, window, truth)
        if self._labels is None:
            return None
        return self._labels.draw(image, window, truth, None, "")


def _galleries(
    dataset: Dataset, found: Sequence[Finding], painter: _Painter
) -> list[Gallery]:
    suspects: dict[int, list[int]] = {}
    for number, finding in enumerate(found, start=1):
        for example in finding.examples:
            numbers = suspects.setdefault(example, [])
            if number not in numbers:
                numbers.append(number)
    shown = _in_turn([finding.examples for finding in found], SUSPICIOUS)
    words = (
        "Examples that findings are of, as numbered above; some, where one is of a "
        "whole set."
    )
    if len(shown) < len(suspects):
        words += f" {len(shown)} of {len(suspects)}, of each finding in turn."
    lines = {
        example: (f"of finding {', '.join(map(str, suspects[example]))}",)
        for example in shown
    }
    parts = {}
    groups = inventory.groups(dataset)
    used = [group for group in groups if group.part != inventory.REST] or groups
    every = []
    # As evenly as may be over the groups, and in each.
    each = max(1, SHOWN // len(used))
    for group in used:
        for example in inventory.spaced(group.ids, each).tolist():
            every.append(example)
            parts[example] = (group.part,)
    return [
        Gallery("suspicious", "Suspicious examples", words, painter.draw(shown, lines)),
        Gallery(
            "examples",
            "Examples",
            f"{len(every)} examples, evenly spaced in each part, with their labels.",
            painter.draw(every, parts),
        ),
    ]


def _in_turn(lists: Sequence[Sequence[int]], most: int) -> list[int]:
    """The first of each list, then the second of each, ...: at most `most`."""
    found: dict[int, None] = {}
    for place in range(max(map(len, lists), default=0)):
        for one in lists:
            if place < len(one) and len(found) < most:
                found[one[place]] = None
    return list(found)


def _terms(config: ConfigDict) -> str:
    about = registry.pictures_of(config.task)
    terms = None if about is None else about.TERMS.get(config.data.name)
    return "" if terms is None else terms.line


def impossible(found: Iterable[Finding]) -> bool:
    """Is any of them impossible?"""
    return any(finding.impossible for finding in found)
