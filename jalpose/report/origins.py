"""Where runs come from: devices, versions, revisions, dates and configs."""

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jalpose.report import page
from jalpose.report.gather import Run
from jalpose.report.page import Markup
from jalpose.settings import differences
from jalpose.storage import records

COLUMNS = (
    "method",
    "seed",
    "device",
    "versions",
    "revision",
    "begun",
    "last record",
    "folder",
)


def provenance(runs: Sequence[Run]) -> Markup:
    """A row for each run, and what of their configs differs and what does not."""
    rows = [
        [
            run.method,
            run.seed,
            (run.about.get("device") or {}).get("kind"),
            _versions(run.about.get("versions") or {}),
            str(run.about.get("git") or "-")[:12],
            _date(run.path / records.CONFIG),
            _date(run.path / records.CYCLES),
            str(run.path),
        ]
        for run in runs
    ]
    note = "Dates are those of the files config.json and cycles.jsonl, in UTC."
    parts = [page.table(COLUMNS, rows, "Where the runs come from", [note])]
    flat = [differences.leaves(run.config) for run in runs]
    keys = sorted(set().union(*flat))
    texts = [
        {key: json.dumps(one[key]) if key in one else None for key in keys}
        for one in flat
    ]
    differing = [key for key in keys if len({text[key] for text in texts}) > 1]
    if differing:
        lines = [
            [key, value, _listed(holders)]
            for key in differing
            for value, holders in _holders(runs, [text[key] for text in texts]).items()
        ]
        caption = "Keys of the configs in which runs differ"
        differ = page.table(["key", "value", "methods and seeds"], lines, caption)
        parts.append(page.details(f"{len(differing)} keys differ", differ))
    same = [key for key in keys if key not in differing]
    listed = "\n".join(f"{key} = {texts[0][key]}" for key in same)
    summary = f"{len(same)} keys are the same in all runs"
    parts.append(page.details(summary, page.element("pre", listed)))
    return page.join(parts)


def _holders(
    runs: Sequence[Run], values: Sequence[str | None]
) -> dict[str | None, list[Run]]:
    found: dict[str | None, list[Run]] = {}
    for run, value in zip(runs, values, strict=True):
        found.setdefault(value, []).append(run)
    return found


def _listed(runs: Sequence[Run]) -> str:
    seeds: dict[str, list[str]] = {}
    for run in runs:
        seeds.setdefault(run.method, []).append(str(run.seed))
    return "; ".join(f"{name} {', '.join(some)}" for name, some in seeds.items())


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _date(path: Path) -> str | None:
    try:
        seconds = path.stat().st_mtime
    except OSError:
        return None
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M")
