"""Tables of the page: what the papers print, beside what is computed."""

from collections.abc import Sequence

import numpy as np

from jalpose.report.tables import Column
from jalpose.report.text_formats import Table
from jalpose.theory import loss_pairs, printed, two_sides
from jalpose.theory.loss_pairs import PAPER, Gamma
from jalpose.theory.losses import TrueLosses
from jalpose.theory.printed import Compared
from jalpose.theory.two_sides import Sides

# Table 1 of LL++: P(|l_1 - l_2| <= margin).
TABLE_1 = {
    0.02: "0.094",
    0.04: "0.185",
    0.06: "0.274",
    0.08: "0.358",
    0.1: "0.437",
    0.125: "0.527",
    0.15: "0.607",
}
# Table 2 of LL++: what is taken from q_i, of the example with the lower loss.
TABLE_2 = {0.0: "0.5", 0.1: "0.39", 0.2: "0.3", 0.3: "0.25", 0.4: "0.21", 0.5: "0.18"}
DIFFERENCES = (-1.0, 0.0, 1.0)  # predicted, of the higher loss less the lower

_PRINTED, _CHECK = "printed", "check value"
_TWICE = "0.09347 rounds to 0.0935 and that to 0.094: the paper has rounded twice"
_CUT = "the paper cuts its digits off"


def pairs() -> Table:
    """Worked examples of LL++'s Fig. 1 and 2."""
    alike = loss_pairs.pair((0.45, 0.47), (1.48, 1.51))
    apart = loss_pairs.pair((0.45, 2.87), (1.48, 1.63))
    first = loss_pairs.pair((2.0, 1.0), (3.0, 0.0))
    second = loss_pairs.pair((1.0, 2.0), (3.0, 0.0))
    rows = [
        Compared("Fig. 1, a and b (alike): LL++'s gradient", alike.factor, "0.00"),
        Compared(
            "Fig. 1, a and c (apart): LL++'s gradient", apart.factor, "0.32", _CUT
        ),
        Compared("the same, Learning Loss's gradient", apart.hinge_factor, "1"),
        Compared("Fig. 2, case 1 (right order): Learning Loss", first.hinge, "0"),
        Compared("Fig. 2, case 2 (wrong order): Learning Loss", second.hinge, "4"),
        Compared("the same, gradient by the weights", second.hinge_factor, "1"),
    ]
    return printed.table(
        "llpp_figures_1_2",
        "Learning Loss and LL++ on one pair: factors of h_i - h_j (LL++ Eq. 1 to 4)",
        rows,
        _PRINTED,
    )


def loss_distribution() -> Table:
    """The density of LL++'s Fig. 3."""
    rows = [
        Compared("likeliest loss", PAPER.mode, "0.2"),
        Compared(
            "density there",
            float(PAPER.density(PAPER.mode)),
            "3.37",
            "read off the red curve by eye",
        ),
    ]
    notes = (
        "The paper prints no parameters. Of whole shapes from 1 to 12 and any rate 4 "
        "alone gives Table 1 within 0.0005, and Table 2 too, at a rate of 15.",
    )
    return printed.table(
        "llpp_figure_3",
        "True losses: Gamma of shape 4 and rate 15 (LL++ Fig. 3)",
        rows,
        "read off",
        notes=notes,
    )


def similar_pairs() -> Table:
    """LL++'s Table 1."""
    rows = [
        Compared(
            f"margin {margin:g}",
            float(loss_pairs.similar(margin, PAPER)),
            value,
            _TWICE if margin == 0.02 else "",
        )
        for margin, value in TABLE_1.items()
    ]
    return printed.table(
        "llpp_table_1",
        "Share of pairs whose losses are within a margin: LL++ Eq. 5, Table 1",
        rows,
        _PRINTED,
    )


def expected_shares() -> Table:
    """LL++'s Table 2."""
    rows = [
        Compared(
            f"margin {margin:g}",
            1 - float(loss_pairs.higher_share(margin, PAPER)),
            value,
        )
        for margin, value in TABLE_2.items()
    ]
    notes = (
        "The expected gradient is the predicted share of the lower loss less this, "
        "times (h_i - h_j).",
    )
    return printed.table(
        "llpp_table_2",
        "Expected share of the lower loss, by the margin: LL++ Eq. 6, Table 2",
        rows,
        _PRINTED,
        notes=notes,
    )


def expected_gradients(gamma: Gamma, margins: Sequence[float]) -> Table:
    """Eq. 6 in full, of the higher loss: factors by margin and predicted difference."""
    rows = []
    for margin in margins:
        share = float(loss_pairs.higher_share(margin, gamma))
        factors = [
            float(loss_pairs.expected_factor(margin, d, gamma)) for d in DIFFERENCES
        ]
        rows.append(
            {
                "margin": margin,
                "density": float(loss_pairs.margin_density(margin, gamma)),
                **dict(zip(map(str, DIFFERENCES), factors, strict=True)),
                "zero": float(np.log(share / (1 - share))),
            }
        )
    columns = (
        Column("margin", ".3g"),
        Column("density", ".6g", "density of the margin"),
        *(Column(str(d), "+.6f", f"at {d:+g}") for d in DIFFERENCES),
        Column("zero", ".6f", "no gradient at"),
    )
    notes = (
        "By the predicted difference, of the higher loss less the lower. Learning "
        "Loss's is -1 below its margin, whatever the true margin, and 0 above.",
    )
    return Table(
        "llpp_equation_6",
        "Expected factor of h_i - h_j, i the example of the higher loss (LL++ Eq. 6)",
        columns,
        tuple(rows),
        notes,
    )


def of_run(losses: TrueLosses) -> tuple[Gamma, Table]:
    """Table 1 of a run: its Gamma, and the share of its own pairs beside it.

    The margins are the paper's, in units of the mean loss.
    """
    gamma = loss_pairs.fit(losses.values)
    mean, paper_mean = float(losses.values.mean()), PAPER.shape / PAPER.rate
    rows = []
    for margin, value in TABLE_1.items():
        own = margin / paper_mean * mean
        rows.append(
            {
                "margin": own,
                "counted": loss_pairs.share_within(losses.values, own),
                "gamma": float(loss_pairs.similar(own, gamma)),
                "paper": float(value),
            }
        )
    left = f" {losses.left_out} others are 0 or not finite." if losses.left_out else ""
    table = Table(
        "llpp_table_1_of_run",
        f"Table 1 of the run's {len(losses.values)} true losses of cycle "
        f"{losses.cycle}, fitted by a Gamma of shape {gamma.shape} and rate "
        f"{gamma.rate:.4g}",
        (
            Column("margin", ".4g"),
            Column("counted", ".3f", "its pairs, counted"),
            Column("gamma", ".3f", "by its Gamma"),
            Column("paper", ".3f", "the paper's"),
        ),
        tuple(rows),
        (
            f"Margins are the paper's times {mean / paper_mean:.4g}, the ratio of the "
            f"mean losses.{left} Where counted and fitted differ, the losses are no "
            "Gamma of a whole shape.",
        ),
    )
    return gamma, table


def worked_regression() -> Table:
    """Worked examples of EGL for regression."""
    three, flipped = two_sides.three_models(), two_sides.flipped()
    checks: tuple[str, ...] = ("1.98", "0.898146", "0.98", "0.302222", "0.027778")
    rows = [
        Compared(f"three models: {name}", value, check)
        for (name, value), check in zip(three.items(), checks, strict=True)
    ]
    checks = ("0.5", "0.3", "0.25", "0.36")
    rows += [
        Compared(f"two orders: {name}", value, check)
        for (name, value), check in zip(flipped.items(), checks, strict=True)
    ]
    side = two_sides.three_processes()
    checks = ("0.139768", "1.176432", "2.715508")
    rows += [
        Compared(f"three processes: EGL, Eq. 10, at {x}", float(value), check)
        for x, value, check in zip((0.5, 1.75, 4), side.egl, checks, strict=True)
    ]
    checks = ("0.340506", "0.597388", "0.942010")
    rows += [
        Compared(f"three processes: Eq. 11, at {x}", float(value), check)
        for x, value, check in zip((0.5, 1.75, 4), side.variance, checks, strict=True)
    ]
    notes = (
        "The paper prints no number of these: the check values were computed by hand "
        "and by Monte Carlo.",
        "Two orders: Eq. 2, Cai's, has A first, EGL B, since it squares.",
    )
    return printed.table(
        "egl_worked_examples",
        "EGL for regression, worked examples (EGL++ Eq. 2, 7, 9, 10, 11)",
        rows,
        _CHECK,
        notes=notes,
    )


def agreements(found: Sequence[Sides]) -> Table:
    """How EGL and predictive variance agree on data."""
    rows = [
        {"data": f"{side.data} ({len(side.egl)})", "models": side.models}
        | two_sides.agreement(side)
        for side in found
    ]
    columns = (
        Column("data", "", "data (pool)"),
        Column("models"),
        Column("identity", ".1e", "identity off by"),
        Column("egl", ".3f", "EGL"),
        Column("bias_only", ".3f", "Var + bias"),
        Column("norm_only", ".3f", "norm x Var"),
        Column("change", ".3f", "Eq. 2"),
        Column("overlap", ".0%", "same tenth"),
        Column("bias_share", ".1%", "bias of Var + bias"),
    )
    correlations = "Spearman with Var"
    return Table(
        "egl_against_variance",
        "EGL against predictive variance (EGL++ Eq. 10 and 11) on a pool",
        columns,
        tuple(rows),
        (
            "Identity: EGL = |grad f|^2 (Var + bias^2), largest relative error. The "
            "paper drops both the norm and the bias (its |grad| is c |y - f|): the "
            "columns Var + bias and norm x Var say which of the two parts the orders.",
            "Same tenth: of the tenth that each would choose, the share that both do.",
        ),
        ("", "", "", *(correlations,) * 4, "", ""),
    )


def partings(found: Sequence[Sides]) -> Table:
    """The examples that EGL and predictive variance rank the most differently."""
    rows = [
        {"models": f"{side.data}, {side.models}"} | row
        for side in found
        for row in two_sides.partings(side)
    ]
    columns = (
        Column("models", "", "data and models"),
        Column("example", "d"),
        Column("rank_egl", "d", "rank by EGL"),
        Column("rank_variance", "d", "rank by Var"),
        Column("squared_norm", ".4g", "|grad f|^2"),
        Column("variance", ".4g", "Var"),
        Column("bias", ".4g", "bias^2"),
        Column("egl", ".4g", "EGL"),
    )
    return Table(
        "egl_partings",
        "Where they part the most: the examples farthest apart in rank",
        columns,
        tuple(rows),
    )
