"""Table 3 of LL++ (CVPRW 2021): LSP to LSPET, PCK@0.2, five methods, five seeds.

    python -m jalpose.experiment --config=configs/experiments/llpp_table3_lsp.py

1,000 labelled and 1,000 more in each of five cycles, out of the whole pool. Learning
Loss and LL++ differ in the objective alone, LL++conv has another head; none reaches the
network. The report has the printed values beside ours: of the images selected, and of
the test set; the heads also score the test set, as Learning Loss judges them there.
scale=small, after a colon: 200 labelled and 100 more out of 600, a network of 32
channels on crops of 64 pixels.

Both papers' tables from one experiment, their common runs once:

    M="('random','coreset','multipeak_entropy','eglpp',"
    M+="'margin_average','kl_average','kl_conv')"
    ... --config.experiment.methods="$M"
"""

from jalpose.loop.configs import experiment


def learning_loss(objective, head):
    """Learning Loss by an objective, with a head."""
    section = "acquisition.learning_loss"
    return "learning_loss", f"{section}.objective={objective}", f"{section}.head={head}"


get_config = experiment(
    "lsp_tables",
    ("random", "coreset", "margin_average", "kl_average", "kl_conv"),
    range(5),
    name="llpp_table3_lsp",
    delta={"evaluation.test_scores": True},
    variants={
        "margin_average": learning_loss("margin", "average"),
        "kl_average": learning_loss("kl", "average"),
        "kl_conv": learning_loss("kl", "conv"),
    },
    full=False,
)
