"""Transfer: the initial weights of a run, from another one's network or published ones.

Of another run all layers are taken but those that hang on the outputs
(`Options.output_layers`), so that skeleton, classes and data may be others. The run
keeps a copy of its own: it goes on without the other workdir, whatever becomes of it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jalpose.loop import saved_models
from jalpose.models.registry import WEIGHTS, options_of
from jalpose.runtime import hosts
from jalpose.settings.checks import ConfigError
from jalpose.settings.differences import differences, plain
from jalpose.storage import records
from jalpose.training.initial_weights import InitialWeights, fitted, layers_of
from jalpose.training.trainer import network_of

RECORD = "initial_weights"  # in config.json
# Keys of a network that do not change what its weights mean.
_SAME_WEIGHTS = (
    "model.convolution",
    "model.dropout",
    "model.dtype",
    "model.weights",
)


def initial_weights(config: ConfigDict, workdir) -> InitialWeights | None:
    """The initial weights of a run: its own copy if it has begun, else of others.

    Args:
      config: validated, of the run.
      workdir: of the run, not refused.

    Returns:
      None where all layers begin anew.

    Raises:
      ConfigError: `config.transfer` is no run's workdir, or its network does not fit;
        the package of published weights is not installed.
      DataError: its file is not the published one.
      CheckpointError: it holds no model, or the run's copy cannot be read.
      ClusterError: hosts have different ones.
    """
    begun, found = records.read_config(workdir), None
    if begun is not None and RECORD in begun:
        variables = saved_models.load_initial_weights(workdir)
        found = InitialWeights(variables, begun[RECORD])
    elif config.transfer:
        found = transferred(config)
    else:
        found = published(config)
    hosts.check_same_facts({"initial weights": found and found.about["digest"]})
    return found


def transferred(config: ConfigDict) -> InitialWeights:
    """All layers but the last of the newest network in `config.transfer`.

    Raises:
      ConfigError: it is no run's workdir, or its network does not fit.
      CheckpointError: it holds no model.
    """
    workdir = config.transfer
    record = records.read_config(workdir)
    if record is None:
        raise ConfigError(
            f"config.transfer={workdir!r} is not the workdir of a run: it holds no "
            f"{records.CONFIG}"
        )
    there, here = (
        {"model": side["model"]} for side in (record["config"], plain(config))
    )
    found = differences(there, here, ignore=_SAME_WEIGHTS)
    if found:
        raise ConfigError(
            f"config.transfer={workdir!r} holds another network; give this run the "
            "same (there -> this run):\n  " + "\n  ".join(found)
        )
    options = options_of(dict(config.model))
    if options.predicts == "numbers":
        raise ConfigError(
            f"config.transfer={workdir!r}: networks of rows are not transferred, whose "
            "columns are others; train it from scratch"
        )
    cycle = saved_models.newest_model(workdir)
    theirs = network_of(saved_models.load_model(workdir, cycle))
    wanted = shapes_of(config)
    names = {*layers_of(theirs), *layers_of(wanted)}
    layers = {n for n in names if not n.startswith(options.output_layers)}
    source = f"config.transfer={workdir!r} (cycle {cycle})"
    return fitted(theirs, wanted, layers, source)


def published(config: ConfigDict) -> InitialWeights | None:
    """The layers that `model.weights` names; None where it names none.

    Raises:
      ConfigError: their package is not installed.
      DataError: its file is not the published one.
    """
    read = WEIGHTS.get(config.model.name, {}).get(config.model.get("weights", ""))
    if read is None:
        return None
    found, source = read()
    wanted = shapes_of(config)
    # Not the classifier of a network that has none.
    layers = set(layers_of(found)) & set(layers_of(wanted))
    return fitted(found, wanted, layers, source)


def shapes_of(config: ConfigDict) -> dict:
    """Shapes of a config's network, as if it had one output."""
    options, size = options_of(dict(config.model)), config.data.size
    blank = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    init = options.build(1).init
    return network_of(jax.eval_shape(init, jax.random.key(0), blank))


def keep(workdir, initial: InitialWeights) -> None:
    """Write a run's own copy; called by all hosts, before `config.json` is written."""
    variables = jax.tree.map(np.asarray, initial.variables)
    saved_models.save_initial_weights(workdir, variables)
