"""The protocols that the files in `configs/` share: one a benchmark.

A file there names a benchmark and a method; what it is run on, for how long and how it
is judged stands here, so that methods differ in nothing else.
"""

from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict

from jalpose.settings.keys import assemble

# Of the scale small: minutes on two CPU cores.
_SMALL: dict[str, object] = {
    "training.base_steps": 2600,
    "training.cycle_steps": 500,
    "acquisition.budget": 150,
    "acquisition.pool_subset": 600,
}

_TINY: dict[str, object] = {"data.initial": 100, "data.pool": 100}
SCALES = {"tiny": _TINY, "small": _SMALL}

# What a benchmark changes at every scale.
BENCHMARKS: dict[str, dict[str, object]] = {
    # LSP labelled and test, LSPET pool: PCK@0.2.
    "lsp": {"data.name": "lsp"},
    # 1,000 people labelled at random, Newell's validation people as the test set:
    # PCKh@0.5. Crops by the official centre and scale.
    "mpii": {
        "data.name": "mpii",
        "data.crop": "official",
        "data.window": 1.25,
        "evaluation.threshold": 0.5,
        "evaluation.reference": "head",
        "evaluation.joints": "official",
    },
}

# What a method needs that no section of its own says.
METHODS: dict[str, dict[str, object]] = {"mc_dropout": {"model.dropout": 0.05}}


def protocol(benchmark: str, method: str) -> Callable[[str], ConfigDict]:
    """The `get_config` of a config file: a benchmark's protocol with one method.

    Args:
      benchmark: of `BENCHMARKS`.
      method: of the acquisition registry.
    """
    delta = {
        **BENCHMARKS[benchmark],
        "acquisition.method": method,
        **METHODS.get(method, {}),
    }

    def get_config(arg: str = "") -> ConfigDict:
        return assemble(arg, name=f"{benchmark}_{method}", delta=delta, scales=SCALES)

    return get_config


def experiment(
    benchmark: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    small: Mapping[str, object],
) -> Callable[[str], ConfigDict]:
    """The `get_config` of an experiment: a benchmark's protocol, methods and seeds.

    Each seed also has a run on all labels, which the curves are drawn against. What any
    of the methods needs, all have: their networks are to be the same.

    Args:
      benchmark: of `BENCHMARKS`.
      methods: of the acquisition registry.
      seeds: of the runs.
      small: what the scale small changes beside `SCALES`, so that all runs together
        take well under an hour on two CPU cores.
    """
    delta: dict[str, object] = {
        **BENCHMARKS[benchmark],
        "experiment.methods": tuple(methods),
        "experiment.seeds": tuple(seeds),
        "experiment.full": True,
    }
    for method in methods:
        delta |= METHODS.get(method, {})
    scales = {**SCALES, "small": {**_SMALL, **small}}

    def get_config(arg: str = "") -> ConfigDict:
        return assemble(arg, name=benchmark, delta=delta, scales=scales)

    return get_config
