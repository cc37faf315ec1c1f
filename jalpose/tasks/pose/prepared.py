"""LSP, LSPET, MPII and own images prepared as records, and opened.

Each image is stored once: people of MPII who share an image share its record, and no
option of who is an example changes the records.
"""

import os

import numpy as np

from jalpose.data.preparation import Recipe, prepare
from jalpose.data.prepared import Prepared, PreparedSource
from jalpose.data.source import DataError
from jalpose.tasks.pose import lsp, mpii, own, own_files, skeletons
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.own import Described


class PreparedPoses(PreparedSource):
    """Images and labels of a prepared set of one skeleton.

    Args:
      skeleton: of its joints.
      name: of the set.
      described: all that the annotation file describes and options leave.
      prepared: its records; examples whose image was left out are so too.

    Attributes:
      skeleton: as given.
      described: how many examples there are, those that were left out among them.
      numbers: int64 [N], which of those each example is.
      images: of the set that the annotation file describes, relative to the data
        folder, whatever is left of its people.
    """

    annotations: Annotations

    def __init__(
        self,
        skeleton: skeletons.Skeleton,
        *,
        name: str,
        described: Annotations,
        prepared: Prepared,
    ):
        there = set(prepared.files)
        kept = np.array([file in there for file in described.files], bool)
        self.skeleton, self.described = skeleton, len(described)
        self.numbers = np.flatnonzero(kept)
        self.images = (*prepared.files, *prepared.damaged)
        if not kept.any():
            raise DataError(
                f"no example of {name.upper()} has an image left: all {len(described)} "
                "are damaged (data.damaged=leave_out)"
            )
        super().__init__(
            name=name,
            annotations=described if kept.all() else described.at(self.numbers),
            prepared=prepared,
        )


def open_source(
    name: str,
    data_dir: str,
    cache_dir: str,
    options: mpii.Options | None = None,
    damaged: str = "refuse",
) -> PreparedPoses:
    """Opens `name` ("lsp", "lspet" or "mpii") in `data_dir`, prepared on first use.

    Args:
      name: of the set.
      data_dir: holds the sets as shipped.
      cache_dir: for the prepared ones.
      options: of MPII; they choose among the examples and change no record.
      damaged: see `preparation.DAMAGED`.

    Raises:
      DataError: if the data set or the cache folder is not usable; the message
        names the file or folder and what to do.
    """
    known = (*lsp.LAYOUTS, "mpii")
    if name not in known:
        raise DataError(f"Unknown {name=}. Known: {', '.join(known)}.")
    data_dir = os.path.abspath(os.path.expanduser(data_dir))
    if name == "mpii":
        options = options or mpii.Options()
        path = mpii.find_annotation(data_dir, options.annotation)
        everybody = mpii.read_annotations(data_dir, options.annotation)
        files = tuple(dict.fromkeys(everybody.files))
        recipe = Recipe(name, files, mpii.read_image_file)
        described = mpii.choose(everybody, options)
    else:
        path = lsp.find_joints_file(name, data_dir)
        described = lsp.read_annotations(name, data_dir)
        recipe = Recipe(name, described.files, lsp.read_image_file)
    return PreparedPoses(
        skeletons.MPII if name == "mpii" else skeletons.LSP,
        name=name,
        described=described,
        prepared=prepare(recipe, path, data_dir, cache_dir, damaged),
    )


class OwnPoses(PreparedPoses):
    """Own images with what their files say; see `own.Described`.

    Args:
      name: of the set.
      said: by the files.
      prepared: records of the images.

    Attributes:
      said: as given, of the examples whose images are there.
      told: int [N, 2], see `own.Described`.
    """

    def __init__(self, *, name: str, said: Described, prepared: Prepared):
        super().__init__(
            said.skeleton, name=name, described=said.annotations, prepared=prepared
        )
        rows = self.numbers
        self.told = said.told[rows]
        self.said = said._replace(
            annotations=self.annotations,
            told=self.told,
            parts=said.parts[rows],
            groups=tuple(said.groups[row] for row in rows),
            whole=said.whole[rows],
        )
        self.notes = (*self.notes, *said.notes)

    def windows(self, crop: str, window: float) -> np.ndarray:
        """Crop windows of the examples; see `own.windows_of`."""
        return own.windows_of(
            self.annotations, self.said.whole, self.sizes, crop, window
        )


def open_own(data) -> OwnPoses:
    """Opens the images that a config's section `data` describes, prepared on first use.

    Raises:
      DataError: see `own.describe` and `open_source`.
    """
    said = own.describe(data)
    data_dir = os.path.abspath(os.path.expanduser(data.dir))
    files = tuple(dict.fromkeys(said.annotations.files))
    recipe = Recipe(data.name, files, own_files.read_image_file)
    prepared = prepare(recipe, None, data_dir, data.cache_dir, data.damaged)
    return OwnPoses(name=data.name, said=said, prepared=prepared)
