"""Files of PyTorch's older format: tensors are read, anything else is refused."""

import collections
import io
import os
import pickle
import struct
import sys
import types

import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.models.pytorch_file import read_tensors

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
FACTS = {"protocol_version": 1001, "little_endian": True}


@pytest.fixture(autouse=True)
def torch(monkeypatch):
    """What a pickle of tensors names, in the place of PyTorch, to write one."""
    module, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage", "QuantisedStorage"):
        setattr(module, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*arguments):
        raise AssertionError("only its name is written")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return module


class Storage:
    def __init__(self, kind, name, count):
        self.pid = ("storage", kind, name, "cpu", count, None)


class Tensor:
    def __init__(self, storage, offset, shape, strides):
        self.made_of = (
            storage,
            offset,
            shape,
            strides,
            False,
            collections.OrderedDict(),
        )

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.made_of


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Storage) else None


def written(path, tensors, storages, facts=FACTS, magic=MAGIC):
    buffer = io.BytesIO()
    for value in (magic, VERSION, facts, tensors, list(storages)):
        Pickler(buffer, 2).dump(value)
    for values in storages.values():
        buffer.write(struct.pack("<q", len(values)) + values.tobytes())
    path.write_bytes(buffer.getvalue())
    return path


def test_tensors_are_views_of_their_storages(torch, tmp_path):
    numbers = np.arange(12, dtype=np.float32)
    shared = Storage(torch.FloatStorage, "7", 12)
    tensors = collections.OrderedDict(
        whole=Tensor(shared, 0, (3, 4), (4, 1)),
        turned=Tensor(shared, 1, (2, 3), (1, 4)),
        count=Tensor(Storage(torch.LongStorage, "a", 1), 0, (), ()),
        nothing=Tensor(shared, 12, (0, 4), (4, 1)),
    )
    storages = {"7": numbers, "a": np.array([5])}
    found = read_tensors(written(tmp_path / "x.pth", tensors, storages))
    assert list(found) == list(tensors)
    np.testing.assert_array_equal(found["whole"], numbers.reshape(3, 4))
    np.testing.assert_array_equal(found["turned"], numbers.reshape(3, 4)[:, 1:3].T)
    assert found["whole"].dtype == np.float32 and found["count"] == 5
    assert found["nothing"].shape == (0, 4)


class Call:
    """A pickle that calls something as it is read."""

    def __init__(self, function, *arguments):
        self.made_of = function, arguments

    def __reduce__(self):
        return self.made_of


@pytest.mark.parametrize("part", ["tensors", "facts"])
def test_nothing_else_is_called(part, tmp_path):
    for function, argument in ((os.mkdir, tmp_path / "made"), (eval, "1"), (list, ())):
        evil = {"x": Call(function, argument)}
        given = {"tensors": {}, "facts": FACTS} | {part: evil}
        path = written(tmp_path / "x.pth", storages={}, **given)
        with pytest.raises(DataError, match="is none of what tensors are made of"):
            read_tensors(path)
    assert not (tmp_path / "made").exists()


def test_what_is_no_file_of_tensors_is_refused(torch, tmp_path):
    path, numbers = tmp_path / "x.pth", np.zeros(4, np.float32)

    def one(offset=0, shape=(4,), strides=(1,), kind="FloatStorage", count=4):
        storage = Storage(getattr(torch, kind), "s", count)
        return {"w": Tensor(storage, offset, shape, strides)}

    for tensors, message in (
        (one(offset=1), "tensor w reaches beyond its storage"),
        (one(strides=(2,)), "beyond its storage"),
        (one(offset=-1), "beyond its storage"),
        (one(strides=(-1,), offset=3), "beyond its storage"),
        (one(count=5), "storage s has 4 numbers, not 5"),
        (one(kind="QuantisedStorage"), r"torch\.QuantisedStorage"),
        ({"w": 3}, "something else than tensors"),
        ([1], "something else than tensors"),
    ):
        with pytest.raises(DataError, match=message):
            read_tensors(written(path, tensors, {"s": numbers}))
    good = written(path, one(), {"s": numbers}).read_bytes()
    for size in (0, 5, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:size])
        with pytest.raises(DataError, match=str(path)):
            read_tensors(path)
    path.write_bytes(b"PK\x03\x04" + good)
    with pytest.raises(DataError, match="older format"):
        read_tensors(path)
    with pytest.raises(DataError, match="little-endian"):
        read_tensors(written(path, one(), {"s": numbers}, facts={}))
    with pytest.raises(DataError, match="does not begin as"):
        read_tensors(written(path, one(), {"s": numbers}, magic=1))
