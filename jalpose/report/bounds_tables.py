"""The record of a run's bounds as plain text: the chain, and Table 2."""

from collections.abc import Mapping

from jalpose.report.tables import Column, format_table

TERMS = ("target", "approx_1", "approx_2", "approx_3")
HEADINGS = {
    "target": "target",
    "approx_1": "approx-1",
    "approx_2": "approx-2",
    "approx_3": "approx-3",
}
LOSSES = {"labels": "true labels", "entropy": "expected loss = entropy"}


def text(record: Mapping) -> str:
    """The averages over the pool, and what the ends of the chain choose alike."""
    options = record["options"]
    parts = [
        f"Bounds of the gradient-norm paper (Wang et al., AAAI 2022, Eq. 3 to 5) on "
        f"{record['workdir']}, method {record['method']}: means over the pool, by the "
        f"parameters of the next cycle; {options['product'].replace('_', '-')} + "
        f"{options['damping']:g}, {record['device']['count']} x "
        f"{record['device']['kind']}.",
        format_table(chain_rows(record), _CHAIN),
        "target: v . g', v the damped inverse curvature of the training loss times the "
        "summed gradient of the\n  test set. approx-1: its size; approx-2: |v| |g'|; "
        "approx-3: |v| |g|, g by the parameters that chose.\n  cos: median of "
        "approx-1 / approx-2. holds: share of the pool, and of the chosen, whose norm "
        "has not risen,\n  so that approx-3 is above approx-2. residual: of the "
        "system, relative.",
    ]
    rows = overlap_rows(record)
    if rows:
        parts += [
            "Of as many chosen by Eq. 3 (the largest target by the true labels) chosen "
            "by the rest of the chain too, in the layout of Table 2:",
            format_table(rows, overlap_columns(rows)),
        ]
    short = [
        f"cycle {cycle['cycle']}, {LOSSES[name]}"
        for cycle in record["cycles"]
        for name, found in cycle["losses"].items()
        if not found["converged"]
    ]
    if short:
        parts.append(
            f"Not solved to {options['tolerance']:g} in {options['steps']} steps: "
            f"{'; '.join(short)}. Take more --steps or --damping."
        )
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


_CHAIN = (
    Column("cycle"),
    Column("labelled"),
    Column("images"),
    Column("loss"),
    *(Column(term, ".4g", HEADINGS[term]) for term in TERMS),
    Column("approx_1_over_2", ".3f", "cos"),
    Column("bound_holds", ".1%", "holds"),
    Column("bound_holds_chosen", ".1%", "chosen"),
    Column("steps"),
    Column("residual", ".1e"),
)


def chain_rows(record: Mapping) -> list[dict]:
    """A row for each cycle and loss."""
    return [
        {
            "cycle": cycle["cycle"],
            "labelled": cycle["num_labelled"],
            "images": cycle["num_images"],
            "loss": LOSSES[name],
            **found,
        }
        for cycle in record["cycles"]
        for name, found in cycle["losses"].items()
    ]


def overlap_rows(record: Mapping) -> list[dict]:
    """A row for each cycle in which something was chosen: numbers in common."""
    return [
        {
            "cycle": cycle["cycle"],
            "labelled": cycle["num_labelled"],
            "chosen": cycle["num_chosen"],
            **cycle["overlap"],
        }
        for cycle in record["cycles"]
        if cycle["overlap"] is not None
    ]


def overlap_columns(rows: list[dict]) -> list[Column]:
    """Columns of `overlap_rows`."""
    named = {
        "eq3 size": "|Eq. 3|",
        "eq4 labels": "Eq. 4",
        "eq5 labels": "Eq. 5",
        "eq4 entropy": "Eq. 4 entropy",
        "eq5 entropy": "Eq. 5 entropy",
        "chance": "chance",
    }
    there = [key for key in named if any(key in row for row in rows)]
    return [
        Column("cycle"),
        Column("labelled"),
        Column("chosen", heading="Eq. 3"),
        *(Column(key, ".0f", named[key]) for key in there),
    ]
