"""Oracles by name."""

from ml_collections import ConfigDict

from jalpose.data.dataset import Dataset
from jalpose.oracles.oracle import Oracle
from jalpose.oracles.simulated import SimulatedOracle
from jalpose.settings.checks import ConfigError
from jalpose.settings.validation import refuse_many_methods
from jalpose.tasks import registry as tasks


def make_oracle(config: ConfigDict, dataset: Dataset, workdir) -> Oracle:
    """The oracle of a config.

    Args:
      config: of the run.
      dataset: the benchmark.
      workdir: of the run.

    Raises:
      ConfigError: people are to label for a task that hands nothing out, or for
        several methods.
    """
    name = config.oracle.name
    if name == "auto":
        name = "simulated" if dataset.pool_labelled else "folder"
    if name == "simulated":
        return SimulatedOracle(dataset)
    refuse_many_methods(config)
    from jalpose.oracles.folder import FolderOracle

    exchange = tasks.exchange_of(config.task)
    if exchange is None:
        raise ConfigError(
            f"oracle.name={config.oracle.name}: the task {config.task} has no module "
            "`exchange`, which hands examples out; see jalpose/tasks/exchange.py"
        )
    return FolderOracle(
        dataset,
        labels=tasks.labels_of(config.task).make_labels(config, dataset),
        exchange=exchange.make_exchange(config, dataset),
        workdir=workdir,
        data_dir=config.data.dir,
        copy=config.oracle.copy,
        allow_partial=config.oracle.allow_partial,
        corrected=config.oracle.corrected,
    )
