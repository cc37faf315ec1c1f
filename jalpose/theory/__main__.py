"""The papers' theory recomputed: one page, beside the printed values.

    python -m jalpose.theory --out=theory --run=runs/lsp

EGL for regression against predictive variance (EGL++, WACV 2022, Eq. 2 and 5 to 11),
and how LearningLoss++ (CVPR workshops 2021) comes to its Tables 1 and 2 and Fig. 1 to
3; of a finished run the latter from its own true losses. Float64, seconds.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from jalpose.runtime.screen import quiet
from jalpose.storage import records


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page: 0, or 2 with the message where that cannot be."""
    given = _parser().parse_args(arguments)
    quiet()
    # Imported late: --help need not wait for JAX and the plots.
    from jalpose.data.source import DataError
    from jalpose.settings.checks import ConfigError
    from jalpose.theory import losses, page, two_sides

    names = [name for name in (given.data or _there()).split(",") if name]
    try:
        records.check_workdir(given.out)
        found = None if given.run is None else losses.read(given.run)
        rows = [two_sides.rows_of(name, given.seed) for name in names]
        sides = [side for one in rows for side in two_sides.sides(one)]
        lines = page.write(Path(given.out), sides, found)
    except (records.WorkdirError, DataError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for line in lines:
        print(line)
    print(f"the page is {Path(given.out) / page.PAGE}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jalpose.theory", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--out", default="theory", help="folder of the page")
    parser.add_argument(
        "--run",
        metavar="WORKDIR",
        help="a finished run, whose true losses are fitted too",
    )
    parser.add_argument(
        "--data",
        metavar="SETS",
        help="for EGL: curve, diabetes or CSV files, separated by commas; by default "
        "curve and, with scikit-learn, diabetes",
    )
    parser.add_argument("--seed", type=int, default=0, help="of who is labelled")
    return parser


def _there() -> str:
    """The sets that need no file: diabetes is scikit-learn's."""
    return "curve" if importlib.util.find_spec("sklearn") is None else "curve,diabetes"


if __name__ == "__main__":
    sys.exit(main())
