"""True losses of a finished run, for the distribution that LL++'s tables stand on."""

import os
from typing import NamedTuple

import numpy as np

from jalpose.storage import cycles, records
from jalpose.storage.arrays import IDS, TRUE_LOSSES
from jalpose.storage.records import WorkdirError


class TrueLosses(NamedTuple):
    """Losses of the pool under the model of one cycle.

    Attributes:
      workdir: of the run.
      cycle: whose model, and whose pool.
      values: float64 [N], those above 0.
      left_out: how many were 0 or not finite.
    """

    workdir: str
    cycle: int
    values: np.ndarray
    left_out: int


def read(workdir: str | os.PathLike[str]) -> TrueLosses:
    """The true losses of a run's first choice: of its base model, as in the paper.

    Raises:
      WorkdirError: no run is there, it has not chosen yet, it has recorded no true
        losses (people labelled for it, so that nobody knows them), or they are no
        distribution.
    """
    if records.read_config(workdir) is None:
        raise WorkdirError(f"--run={workdir}: there is no run, it has no config.json")
    chose = [one["cycle"] for one in records.read_cycles(workdir) if cycles.chose(one)]
    if not chose:
        raise WorkdirError(
            f"--run={workdir} has chosen nothing yet: true losses are recorded with a "
            "choice. Let its first cycle end, or name another run"
        )
    try:
        found = records.read_arrays(workdir, chose[0])
    except FileNotFoundError:
        found = {}
    if TRUE_LOSSES not in found:
        of = f" of its {len(found[IDS])} scored examples" if IDS in found else ""
        raise WorkdirError(
            f"--run={workdir} has no true losses{of} in cycle {chose[0]} "
            f"(arrays/cycle_{chose[0]:02d}.npz, true_losses): its labels came from "
            "people, or it is of an older version. Name a run with oracle.name="
            "simulated"
        )
    losses = np.asarray(found[TRUE_LOSSES], np.float64)
    usable = losses[np.isfinite(losses) & (losses > 0)]
    if len(usable) < 2 or np.ptp(usable) == 0:
        raise WorkdirError(
            f"--run={workdir}: {len(usable)} of {len(losses)} true losses of cycle "
            f"{chose[0]} are above 0, and they are not two different ones: no "
            "distribution can be fitted to them"
        )
    return TrueLosses(str(workdir), chose[0], usable, len(losses) - len(usable))
