"""What of a config is allowed and still worth a warning before a run begins."""

import jax
from ml_collections import ConfigDict

from jalpose.data.dataset import Dataset
from jalpose.settings.validation import uneven_splits
from jalpose.storage import records


def cautions(config: ConfigDict, dataset: Dataset, num_devices: int) -> list[str]:
    """A line each."""
    return [*uneven_splits(config, num_devices), *large_picks(config, dataset)]


def large_picks(config: ConfigDict, dataset: Dataset) -> list[str]:
    """A line where so much is chosen that methods choose much the same."""
    if not config.loop.cycles or config.acquisition.budget_unit != "images":
        return []
    acquisition, pool = config.acquisition, len(dataset.pool)
    scored = acquisition.pool_subset or pool
    return [
        f"{what} are {part} of {whole} images, above 40 %: methods then choose much "
        "the same"
        for what, part, whole in (
            ("a cycle's picks", acquisition.budget, scored),
            ("all cycles' picks", acquisition.budget * config.loop.cycles, pool),
        )
        if part > 0.4 * whole
    ]


def another_device(workdir) -> list[str]:
    """A line where the run in a workdir was begun on devices of another kind."""
    record, kind = records.read_config(workdir), jax.devices()[0].device_kind
    if record is None or record["device"]["kind"] == kind:
        return []
    return [
        f"this run was begun on {record['device']['kind']} and goes on on {kind}: it "
        "will not be the same to the bit"
    ]
