"""All that a state of a run holds, by name, so that two can be compared to the bit."""

import dataclasses

import jax
import numpy as np

CLOCK = {"seconds": 1.5, "acquisition": 0.25}  # to save a state with


def leaves(tree, prefix):
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {prefix + jax.tree_util.keystr(path): np.array(leaf) for path, leaf in found}


def flat(state):
    """All that a state holds, by name, as numpy copies."""
    phase = state.phase
    found = {
        "cycle": np.array(state.cycle),
        "labelled": np.array(state.labelled),
        f"is {type(phase).__name__}": np.array(True),
        **leaves(state.answers, "answers"),
    }
    for field in dataclasses.fields(phase):
        value = getattr(phase, field.name)
        if field.name == "peak_bytes":  # of a process
            continue
        if field.name == "journal":
            for name in value.names():
                found.update(leaves(value.read(name), f"journal {name} "))
        else:
            found.update(leaves(value, field.name))
    return found


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].shape == value.shape, name
        assert found[name].tobytes() == value.tobytes(), name


def facts(event):
    """What an event says, without the work it took and what the device needed for it.

    What is compiled anew may be less: the peak is of this process.
    """
    found = {
        field.name: getattr(event, field.name)
        for field in dataclasses.fields(event)
        if field.name not in ("meter", "arrays", "variables")
    }
    if "acquisition" in found:
        found["acquisition"] = {
            k: v for k, v in found["acquisition"].items() if k != "peak_bytes"
        }
    return found


def assert_same_events(found, wanted):
    """But for what `facts` leaves out."""
    assert type(found) is type(wanted)
    assert facts(found) == facts(wanted)
    for name in ("arrays", "variables"):
        one, other = (leaves(getattr(e, name, {}), name) for e in (found, wanted))
        assert_same(one, other)
