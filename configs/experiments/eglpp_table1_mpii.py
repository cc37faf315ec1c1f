"""Table 1 of EGL++ (WACV 2022): MPII, PCKh@0.5, five methods, five seeds.

    python -m jalpose.experiment --config=configs/experiments/eglpp_table1_mpii.py

1,000 labelled and 1,000 more in each of five cycles, out of the whole pool. Learning
Loss is as in the published code: it ranks with a margin, from averaged features, and
does not reach the network. The report has the printed values beside ours, with the
paper's one-tailed paired t-test. scale=small, after a colon: 200 labelled and 100 more
out of 600, a network of 32 channels on crops of 64 pixels.
"""

from jalpose.loop.configs import experiment

LEARNING_LOSS = (
    "learning_loss",
    "acquisition.learning_loss.objective=margin",
    "acquisition.learning_loss.head=average",
)

get_config = experiment(
    "mpii_tables",
    ("random", "coreset", "multipeak_entropy", "margin_average", "eglpp"),
    range(5),
    name="eglpp_table1_mpii",
    variants={"margin_average": LEARNING_LOSS},
    full=False,
)
