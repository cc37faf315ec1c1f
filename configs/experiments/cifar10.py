"""Five methods with three seeds on CIFAR-10: gradnorm's protocol.

    python -m jalpose.experiment --config=configs/experiments/cifar10.py:scale=small

scale=paper (the default): as configs/cifar10.py, for GPUs, a part each with --shard=1/3
to --shard=3/3. scale=small: likewise, all runs in under two hours on two CPU cores.
scale=tiny: to see that everything works.
"""

from jalpose.loop.configs import experiment

get_config = experiment(
    "cifar10",
    ("random", "coreset", "softmax_entropy", "learning_loss", "entropy_gradnorm"),
    (0, 1, 2),
    task="classification",
)
