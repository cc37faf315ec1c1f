"""Is a method better than chance? Several seeds, and one sentence that says so or not.

    python scripts/examples/is_a_method_better.py [FOLDER]

Three seeds of tiny runs on drawn figures show how: nothing will be significant. Real
questions want a benchmark of their own, ten seeds, and configs/experiments/.
"""

import sys
import tempfile

from jalpose.experiments import loop
from jalpose.loop.configs import experiment
from jalpose.report import verdict

get_config = experiment(
    "figures",
    ("random", "coreset"),
    range(3),
    name="is_a_method_better",
    delta={"loop.cycles": 1, "output.report": False},
    scales={"tiny": {}},
    scale="tiny",
)


def main(workdir: str):
    """Print, and return, the verdict on all runs as lines."""
    loop.experiment(get_config(""), workdir)
    said = list(verdict.lines([workdir]))
    print("\n".join(said))
    return said


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
