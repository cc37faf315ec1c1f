"""Keys that the brightness of squares adds to a config."""

from jalpose.settings.checks import between
from jalpose.settings.scales import Benchmark

MODEL = "one_layer"
MODEL_SECTIONS = ()


def add_keys(config):
    config.data.name = "squares"
    config.data.unlabelled = 0.0  # share of the examples whose square nobody measured
    config.evaluation.bright = 0.5  # brightness that parts dark from bright squares


SCALES = {"tiny": {"data.size": 16}, "small": {"data.size": 16}, "paper": {}}
BENCHMARKS = {"squares": Benchmark({"data.name": "squares"}, {})}


def check(config):
    between("data.unlabelled", config.data.unlabelled, 0, 1)
    between("evaluation.bright", config.evaluation.bright, 0, 1)
