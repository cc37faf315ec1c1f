"""LSP as people's own images: labelled by people it is what the simulation is.

LSP is written out as COCO files and folders. A simulation buys labels that the files
have; a run of the same seed has never seen those of its pool, hands out what it chose,
and is given labels in a tool's format by `scripts/play_annotator.py`. Three cycles: the
same is chosen, and the same learnt.
"""

import io

import pytest

from jalpose.loop import configs, run
from jalpose.loop.context import make_context
from jalpose.loop.events import Finished, Waiting
from jalpose.oracles.registry import make_oracle
from jalpose.runtime.screen import Screen
from jalpose.storage import cycles, records
from jalpose.tasks.pose.skeletons import ABSENT
from tests.support import annotator, lsp_as_coco, miniature, small

CYCLES = 3
DELTA = {
    "data.threads": 1,
    "data.packed": False,
    "data.photos.test": "test.json",
    "model.channels": 8,
    "model.depth": 1,
    "model.convolution": "native",
    "training.base_steps": 4,
    "training.cycle_steps": 3,
    "evaluation.true_norms": False,
    "loop.cycles": CYCLES,
    "output.tensorboard": False,
    "output.images": 0,
    "output.report": False,
}


@pytest.fixture(scope="module", autouse=True)
def quick_restore():
    with pytest.MonkeyPatch.context() as patch:
        small.remember_templates(patch)
        yield


class Images:
    """LSP as own images, and the simulation that buys their labels.

    Args:
      root: folder to write into.
      data_dir: that holds `lsp/`.
      network: in the place of the config's.
      sizes: as `lsp_as_coco.write` takes them.
      changes: of the config, by dotted key.
    """

    def __init__(self, root, data_dir, network, sizes, changes):
        root.mkdir()
        self.root, self._network, self._changes = root, network, changes
        lsp_as_coco.write(root, data_dir, **sizes)
        self.simulated = root / "simulated"
        self.all, ended = self.start(self.simulated, "simulated", labelled="train.json")
        assert isinstance(ended, Finished)

    def start(self, workdir, oracle, **keys):
        """Run until it is done or waits: the dataset, and how it ended."""
        delta = {
            **DELTA,
            **self._changes,
            "data.dir": str(self.root),
            "data.cache_dir": str(self.root / "cache"),
            "oracle.name": oracle,
            **{f"data.photos.{key}": value for key, value in keys.items()},
        }
        make = configs.benchmark(
            "photos", method="softmax_entropy", scales={"tiny": delta}
        )
        config = make("scale=tiny")
        configs.check(config)
        data = run.load_dataset(config)
        made = make_context(
            config,
            data,
            small.programs(),
            network=self._network,
            oracle=make_oracle(config, data, workdir),
        )
        return data, run.run_one(made, workdir, Screen(io.StringIO()))

    def people_label(self, workdir, tool, pool):
        """The same by people: its dataset, and how many starts it took."""
        keys = {"labelled": "labelled.json", "pool": pool}
        for starts in range(1, 2 * CYCLES):
            data, ended = self.start(workdir, "folder", **keys)
            if isinstance(ended, Finished):
                return data, starts
            assert isinstance(ended, Waiting)
            labels = ["--labels", str(self.root / "train.json"), "--tool", tool]
            annotator.SCRIPT.main([str(workdir), *labels])
        raise AssertionError("it does not end")

    def is_the_simulation(self, workdir, data):
        """Assert that all that is learnt, chosen and scored is the same, to the bit."""
        assert not data.pool_labelled
        assert (data.truth["status"][data.pool] == ABSENT).all()
        for cycle in range(CYCLES + 1):
            ours, theirs = (
                records.read_arrays(folder, cycle)
                for folder in (workdir, self.simulated)
            )
            assert ours["test_joints"].tobytes() == theirs["test_joints"].tobytes()
            assert ("selected" in theirs) == (cycle < CYCLES)
            if cycle == CYCLES:
                continue
            chosen = [
                [of.files[i] for i in arrays["selected"]]
                for of, arrays in ((data, ours), (self.all, theirs))
            ]
            assert chosen[0] == chosen[1] and len(set(chosen[0])) == len(chosen[0]) > 0
            assert ours["scores"].tobytes() == theirs["scores"].tobytes()
        ours, theirs = (
            records.read_cycles(folder) for folder in (workdir, self.simulated)
        )
        assert [x["metrics"] for x in ours] == [x["metrics"] for x in theirs]
        counts = [x["num_labelled"] for x in ours]
        assert counts == [x["num_labelled"] for x in theirs]
        assert counts == sorted(set(counts))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """(with boxes, without) of drawn figures and a network of nearly nothing."""
    folder = tmp_path_factory.mktemp("drawn figures")
    miniature.write_miniature(folder, 60, 0, image_size=(48, 64))
    changes = {"data.initial": 12, "acquisition.budget": 3}
    sizes = {"train": 30, "test": 8}
    return tuple(
        Images(
            folder / f"boxes {boxes}",
            folder,
            small.FLAT,
            {**sizes, "boxes": boxes},
            {**changes, "data.groups": groups},
        )
        for boxes, groups in ((True, "none"), (False, r"im00(\d)"))
    )


@pytest.mark.slow
@pytest.mark.parametrize("tool", annotator.TOOLS)
def test_labelled_in_any_tool_it_is_the_simulation(drawn, tool, tmp_path):
    images, _ = drawn
    lsp_as_coco.cut(images.root, images.all)
    data, starts = images.people_label(tmp_path / "run", tool, "pool.json")
    assert starts == CYCLES + 1
    images.is_the_simulation(tmp_path / "run", data)


@pytest.mark.slow
def test_so_it_is_with_a_bare_folder_of_whole_images_in_groups(drawn, tmp_path):
    _, images = drawn
    lsp_as_coco.cut(images.root, images.all)
    data, _ = images.people_label(tmp_path / "run", "label_studio", "images")
    images.is_the_simulation(tmp_path / "run", data)
    ours, theirs = (
        [cycles.groups(line) for line in records.read_cycles(folder)]
        for folder in (tmp_path / "run", images.simulated)
    )
    assert ours == theirs and not ours[-1]
    assert sum(one["pool"] for one in ours[0].values()) == len(data.pool)
    assert sum(one["chosen"] for one in ours[0].values()) == 3


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("boxes", [True, False])
def test_the_real_lsp(boxes, tmp_path):
    root = miniature.real_data_dir()
    if root is None:
        pytest.skip("no real data")
    changes = {"data.initial": 40, "acquisition.budget": 5, "training.base_steps": 20}
    sizes = {"train": 80, "test": 16, "boxes": boxes}
    images = Images(tmp_path / "lsp", root, None, sizes, changes)
    pool = "pool.json" if boxes else "images"
    lsp_as_coco.cut(images.root, images.all)
    for tool in annotator.TOOLS:
        data, _ = images.people_label(tmp_path / tool, tool, pool)
        images.is_the_simulation(tmp_path / tool, data)
