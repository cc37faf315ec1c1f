"""Which images should be labelled next? A run of one cycle, and its list.

    python scripts/examples/which_images_next.py [FOLDER]

Drawn figures stand for your images. For a folder of photographs, with people who
label, see jalpose/oracles/README.md: there the list comes with forms to fill in.
"""

import csv
import sys
import tempfile
from pathlib import Path

from jalpose.loop import run
from jalpose.loop.configs import benchmark

get_config = benchmark(
    "figures",
    name="which_images_next",
    method="softmax_entropy",
    delta={"loop.cycles": 1, "output.report": False, "acquisition.diverse": "lcmd"},
    scale="tiny",
)


def main(workdir: str):
    """Print, and return, the rows of the images chosen, the best first."""
    run.run(get_config(""), workdir)
    with open(Path(workdir, "selections", "cycle_00.csv")) as file:
        rows = list(csv.DictReader(file))
    print("to be labelled next:")
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    return rows


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
