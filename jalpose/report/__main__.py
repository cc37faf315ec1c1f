"""Report on finished or unfinished runs, from their records alone.

    python -m jalpose.report runs/lsp runs/more --out=report --reference=random

Writes index.html, one page that needs nothing else, and beside it tables/, plots/ and
label_check.csv. With --watch it writes them again as records come, until the runs are
finished.
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from jalpose.runtime.screen import quiet
from jalpose.storage import records


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report: 0, or 2 with the message where there is none to write."""
    given = _parser().parse_args(arguments)
    quiet()
    # Imported late: --help need not wait for the plots.
    from jalpose.report import watch
    from jalpose.report.gather import gather
    from jalpose.report.page import refuse_others
    from jalpose.report.text_formats import counted
    from jalpose.report.write import PAGE, Options, Report

    options = Options(
        reference=given.reference,
        photographs=given.images,
        data_dir=given.data_dir,
        watched=given.watch,
    )

    def write() -> watch.Written:
        found = gather(given.folders)
        report = Report(found, given.folders, given.out, options)
        path = report.write()
        for line in report.warnings:
            if line not in told:
                told.append(line)
                print(f"note: {line}", file=sys.stderr)
        return watch.Written(found, path)

    told: list[str] = []
    try:
        records.check_workdir(given.out)
        refuse_others(Path(given.out) / PAGE)
        if given.watch:
            watch.watch(given.folders, write, functools.partial(print, flush=True))
            return 0
        found, path = write()
    except records.WorkdirError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        where = f"{error.filename} cannot be read or written ({error.strerror})"
        print(f"error: {where}", file=sys.stderr)
        return 2
    for line in found.missing:
        print(f"note: {line}", file=sys.stderr)
    print(f"{counted(len(found.runs), 'run')}; the report is {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jalpose.report", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="DIR",
        help="a run, a folder of runs, or an experiment",
    )
    parser.add_argument("--out", default="report", help="folder of the report")
    parser.add_argument(
        "--reference",
        help="method that the others are compared with; default random, else the first",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="write it again as records come, until the runs are finished; Ctrl-C ends",
    )
    parser.add_argument(
        "--no-images",
        dest="images",
        action="store_false",
        help="leave out photographs; what is predicted is drawn alone",
    )
    parser.add_argument(
        "--data_dir",
        help="folder of the data, where it is not the one that the runs recorded",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
