"""The record of a comparison of engines as plain text."""

from collections.abc import Mapping

from jalpose.report.tables import Column, format_table

# Whose worst layers are listed.
_MISSING = ("conv_linear", "goodfellow")


def text(record: Mapping) -> str:
    """Engines, shares of the squared norm by stage and kind, and the worst layers."""
    parts = [_heading(record), _engines(record), _notes(record)]
    for grouping in ("stage", "kind"):
        parts += [_shares_heading(grouping), _shares(record, grouping)]
    for label in _MISSING:
        if label in record["layers"]["engines"]:
            parts += [f"Layers {label} misses most, of the whole exact squared norm:"]
            parts += [_missed(record, label)]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _heading(record):
    return (
        f"{record['num_images']} images of the pool, {record['num_candidates']} "
        f"candidate labels each, model of cycle {record['cycle']} "
        f"({record['num_labelled']} labelled), {record['device']['count']} x "
        f"{record['device']['kind']}; compared with {record['reference']}:"
    )


def _engines(record):
    rows = []
    for engine in record["engines"]:
        row = dict(engine)
        budgets = zip(record["budgets"], engine["overlap"], strict=True)
        row.update({f"top {f:.0%}": value for f, value in budgets})
        if engine["label"] == record["reference"]:
            # Of the reference with itself there is nothing to tell.
            row.update(dict.fromkeys(("median_error", "max_error")))
        rows.append(row)
    microbatches = {row["microbatch"] for row in rows if row.get("microbatch")}
    columns = [
        Column("label", heading="engine"),
        Column("backward_passes", heading="passes"),
        # Peaks of engines that take other numbers at once are not of the same work.
        *([Column("microbatch", heading="at once")] if len(microbatches) > 1 else []),
        Column("seconds_an_image", ".3g", "s/image"),
        Column("time_ratio", ".3f", "ratio"),
        Column("peak_mib", ".0f", "MiB"),
        Column("memory_ratio", ".2f", "ratio"),
        Column("median_error", ".1e", "median err"),
        Column("max_error", ".1e", "max err"),
        Column("spearman", ".3f", "Spearman"),
        Column("kendall", ".3f", "Kendall"),
        *(Column(f"top {f:.0%}", ".0%") for f in record["budgets"]),
    ]
    if any(row["covered"] is not None for row in rows):
        columns.append(Column("covered", ".0%"))
    return format_table(rows, columns)


def _notes(record):
    counts = ", ".join(
        f"{number} ({fraction:.0%})"
        for fraction, number in zip(
            record["budgets"], record["budget_images"], strict=True
        )
    )
    lines = [
        "passes: backward passes an image. s/image: wall time, compiling, reading and "
        "the search for",
        "  neighbours left out. MiB: the compiler's peak on a device. err: relative. "
        f"top: share of the {counts}",
        f"  images {record['reference']} selects that are selected.",
        "sketchMrR: M passes, R of them random signs; covered: exact value within two "
        "standard errors.",
        "residual: squared norm of the loss's gradient by the output alone, a forward "
        "pass.",
        "last layer: the part of the heads' own parameters in the exact norm.",
    ]
    return "\n".join(lines)


def _shares_heading(grouping):
    return (
        f"Share of the exact squared norm by {grouping} (mean over images), and what "
        "part of it each engine has:"
    )


def _shares(record, grouping):
    layers = record["layers"]
    # What is exact has all of everything.
    exact = {engine["label"] for engine in record["engines"] if engine.get("exact")}
    labels = [label for label in layers["engines"] if label not in exact]
    rows = []
    for name, share in layers["exact"][grouping].items():
        found = {
            label: layers["engines"][label]["of_exact"][grouping][name]
            for label in labels
        }
        rows.append({grouping: name, "share": share, **found})
    columns = [
        Column(grouping),
        Column("share", ".2%"),
        *(Column(label, ".3f") for label in labels),
    ]
    return format_table(rows, columns)


def _missed(record, label):
    columns = [
        Column("layer"),
        Column("exact", ".2%"),
        Column("found", ".2%", label),
        Column("lost", "+.2%"),
    ]
    return format_table(record["layers"]["engines"][label]["missed"], columns)
