"""Keys that poses add to a config, what scales change of them, and benchmarks."""

import re

from ml_collections import ConfigDict

from jalpose.settings.checks import ConfigError, above, at_least, between, one_of
from jalpose.settings.scales import Benchmark
from jalpose.tasks.pose import published
from jalpose.tasks.pose.own import NAMES
from jalpose.tasks.pose.pck import REFERENCES
from jalpose.tasks.pose.scores import SCORES
from jalpose.tasks.pose.windows import CROPS

# Presets of published codes, and what of those no key does.
PAPERS, NOT_DONE = published.PAPERS, published.NOT_DONE

MODEL = "hourglass"  # of a config that names no other
PREDICTS = "heatmaps"  # of its network
MODEL_OPTIONS: dict[str, dict[str, object]] = {}  # what options of others become
# Sections of these keys that make a trained model what it is.
MODEL_SECTIONS = ("heatmap",)


def add_keys(config: ConfigDict) -> None:
    """Add the sections and keys of poses to the common ones."""
    data = config.data
    # lsp (LSP labelled and test, LSPET pool) | mpii | figures (drawn) | photos (own
    # images) | coco
    data.name = "lsp"
    # joints (box of the annotated joints) | box (person box) | official (MPII's centre
    # and height of the person, as its codes crop)
    data.crop = "joints"
    # Crop side, in longer sides of that box; official: in heights of the person (1.25).
    data.window = 1.75
    # Figures only: fraction of rare poses in pool and test; of the test set another
    # where it is not -1; examples of the pool that are frames of one sequence, and the
    # spread of the logarithm of that number (0: all are as long; 1.5: a tenth of the
    # sequences hold half of the frames).
    data.rare = 0.6
    data.rare_test = -1.0
    data.frames = 1
    data.frames_spread = 0.0
    mpii = data.mpii = ConfigDict()
    # Annotation file, relative to <data.dir>/mpii; "": the official .mat if it is
    # there, else HRNet's JSON (annot/trainval.json or trainval.json).
    mpii.annotation = ""
    mpii.all_joints = False  # only people with all 16 joints (the published code: True)
    mpii.head_shift = 0.0  # moves the head towards the neck (the published code: 0.2)

    # Of own images and COCO: what is held out, and drawn for the test set, together:
    # folder | none (each image by itself) | a regular expression that finds the group
    # in the path of an image, e.g. "(.*)_frame".
    data.groups = "none"
    photos = data.photos = ConfigDict()  # of own images and COCO, relative to data.dir
    # Annotation file, or folder of a DeepLabCut project; "": looked for.
    photos.labelled = ""
    # Folder of images, COCO file or CSV (file,x,y,w,h) with boxes; "": the labelled
    # that are not in data.initial, whose labels are then simulated.
    photos.pool = ""
    photos.test = ""  # annotation file; "": a share of the labelled
    photos.test_share = 0.2  # of the labelled, where no file is named
    photos.test_seed = 0  # which share that is, the same for every `seed`
    photos.images = ""  # folder that annotation files name images in; "": looked for
    photos.category = ""  # of a COCO file with several that have keypoints
    # Pairs of names; (): by their names, and as the file has them.
    photos.mirror = ()  # joints that change places, (("left ear", "right ear"), ...)
    photos.links = ()  # joints that a line is drawn between

    heatmap = config.heatmap = ConfigDict()
    heatmap.sigma = 1.75  # heatmap pixels at 64x64; scaled with the map's size
    heatmap.peak = 30.0  # value at a joint, as published

    augment = config.augment = ConfigDict()
    augment.scale = (0.75, 1.25)  # factor, uniform
    # Besides: as if the crop's side were drawn from here, in longer sides of its box,
    # instead of `data.window`; (): it is not. The published code's is (1.5, 2.0).
    augment.window = ()
    augment.rotate = 45.0  # degrees either way, uniform
    augment.shift = 0.2  # of the crop side either way, uniform
    augment.flip = 0.5  # probability
    augment.brightness = 0.0  # of the full range either way, uniform
    augment.contrast = 0.0  # factor 1 +- this, uniform
    augment.colour = 0.0  # factor 1 +- this a channel, uniform

    config.training.occluded = True  # occluded joints are trained on

    evaluation = config.evaluation
    # The main score: pck | oks (COCO's mean average precision) | pixels (mean error,
    # DeepLabCut's RMSE). The others are recorded beside it where they can be taken.
    evaluation.score = "pck"
    # Of OKS, COCO's constants: one a joint, or one for all; (): those of its joints.
    evaluation.sigmas = ()
    evaluation.threshold = 0.2  # for PCK, of the length in `reference`
    # torso (PCK) | head (official PCKh: 0.6 of the head box's diagonal) | head_full
    # (the published code's PCKh: the whole diagonal) | box (diagonal of the person's)
    evaluation.reference = "torso"
    # Mean over: all (every joint alike) | official (every annotated joint alike, MPII's
    # pelvis and thorax left out)
    evaluation.joints = "all"
    evaluation.occluded = True  # occluded joints are evaluated
    # Of PCK: a joint whose heatmap is nowhere as high, in `heatmap.peak`, is not found
    # (the earlier commit of the published code: 0.25).
    evaluation.least_peak = 0.0
    evaluation.refine = "parabola"  # sub-pixel decoding: parabola | mass | none


SCALES: dict[str, dict[str, object]] = {
    "tiny": {"data.size": 32},
    "small": {
        "data.size": 128,
        "augment.rotate": 30.0,
        "augment.shift": 0.1,
        "augment.brightness": 0.1,
        "augment.contrast": 0.2,
        "augment.colour": 0.1,
    },
    "paper": {},
}

# Of the real sets: tiny sees all of a pass, small takes minutes on two CPU cores.
_LENGTHS: dict[str, dict[str, object]] = {
    "tiny": {"data.initial": 100, "data.pool": 100},
    "small": {
        "training.base_steps": 2600,
        "training.cycle_steps": 500,
        "acquisition.budget": 150,
        "acquisition.pool_subset": 600,
    },
}

# Of the tables of EGL++ and LL++: five cycles of as many labels as there are at the
# start. small: a method's run takes a minute or two on one CPU core; as in the papers a
# batch is a sixth of what it is chosen from, or less.
_TABLES: dict[str, dict[str, object]] = {
    "tiny": {"data.initial": 100, "data.pool": 100},
    "small": {
        "data.size": 64,
        "data.initial": 200,
        "data.test": 1000,
        "model.channels": 32,
        "model.depth": 3,
        "training.batch": 8,
        "training.learning_rate": 1e-2,
        "training.base_steps": 800,
        "training.cycle_steps": 200,
        "evaluation.block": 40,
        "evaluation.true_norms": False,
        "acquisition.budget": 100,
        "acquisition.pool_subset": 600,
        "acquisition.eglpp.neighbours": 10,
        "acquisition.eglpp.perplexity": 5.0,
        "acquisition.learning_loss.steps": 400,
        "loop.cycles": 5,
        "output.images": 0,
    },
}

# Of sets of any size: all that there is.
_EVERYBODY: dict[str, object] = {
    "data.initial": 0,
    "data.pool": 0,
    "data.test": 0,
    "acquisition.pool_subset": 0,
}

_LSP: dict[str, object] = {"data.name": "lsp"}
_MPII: dict[str, object] = {
    "data.name": "mpii",
    "data.crop": "official",
    "data.window": 1.25,
    "evaluation.threshold": 0.5,
    "evaluation.reference": "head",
    "evaluation.joints": "official",
}

BENCHMARKS = {
    # LSP labelled and test, LSPET pool: PCK@0.2.
    "lsp": Benchmark(_LSP, _LENGTHS),
    # 1,000 people labelled at random, Newell's validation people as the test set:
    # PCKh@0.5. Crops by the official centre and scale.
    "mpii": Benchmark(_MPII, _LENGTHS),
    "lsp_tables": Benchmark(_LSP, _TABLES),
    "mpii_tables": Benchmark(_MPII, _TABLES),
    # Own images, asked for labels; a share of the labelled is the test set.
    "photos": Benchmark(
        {
            "data.name": "photos",
            "oracle.name": "auto",
            "data.crop": "box",
            "data.window": 1.25,
            "data.initial": 0,
            "data.damaged": "leave_out",
            "evaluation.score": "pixels",
            "evaluation.reference": "box",
            "evaluation.threshold": 0.1,
        },
        {
            "tiny": {**_EVERYBODY, "acquisition.budget": 4},
            "small": {
                **_EVERYBODY,
                "training.batch": 8,
                "training.base_steps": 1000,
                "training.cycle_steps": 300,
                "acquisition.budget": 20,
            },
            "paper": {"acquisition.budget": 100},
        },
    ),
    # COCO: training people drawn as labelled, the others the pool, validation people
    # the test set; by its mean average precision.
    "coco": Benchmark(
        {
            "data.name": "coco",
            "data.crop": "box",
            "data.window": 1.25,
            "evaluation.score": "oks",
            "evaluation.reference": "box",
            "evaluation.threshold": 0.1,
        },
        {
            "tiny": {
                **_EVERYBODY,
                "data.initial": 20,
                "acquisition.budget": 4,
            },
            "small": {
                "training.base_steps": 2600,
                "training.cycle_steps": 500,
                "acquisition.budget": 150,
                "acquisition.pool_subset": 600,
            },
        },
    ),
    # Drawn figures: everyday poses labelled, rarer ones as well in pool and test set.
    "figures": Benchmark(
        {"data.name": "figures"},
        {
            "small": {
                "data.size": 64,
                "data.initial": 300,
                "data.pool": 600,
                "data.test": 400,
                "model.channels": 48,
                "model.depth": 3,
                "training.batch": 8,
                "training.learning_rate": 1e-2,
                "training.base_steps": 1400,
                "training.cycle_steps": 300,
                "evaluation.block": 40,
                "acquisition.budget": 60,
                "acquisition.pool_subset": 200,
                "acquisition.eglpp.neighbours": 15,
                "acquisition.eglpp.perplexity": 10.0,
            },
            "paper": {"data.pool": 11000, "data.test": 1000},
        },
    ),
}


def check(config: ConfigDict) -> None:
    """Check the values of the keys above.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    evaluation, data = config.evaluation, config.data
    one_of("data.crop", data.crop, CROPS)
    one_of("evaluation.refine", evaluation.refine, ("parabola", "mass", "none"))
    one_of("evaluation.reference", evaluation.reference, REFERENCES)
    one_of("evaluation.score", evaluation.score, SCORES)
    for sigma in evaluation.sigmas:
        above(0, evaluation__sigmas=sigma)
    _check_photos(data)
    one_of("evaluation.joints", evaluation.joints, ("all", "official"))
    above(0, data__window=data.window, evaluation__threshold=evaluation.threshold)
    above(0, heatmap__sigma=config.heatmap.sigma, heatmap__peak=config.heatmap.peak)
    for key in ("shift", "brightness", "contrast", "colour", "rotate"):
        at_least(0, **{f"augment__{key}": config.augment[key]})
    between("augment.flip", config.augment.flip, 0, 1)
    between("data.rare", data.rare, 0, 1)
    if data.rare_test != -1:
        between("data.rare_test", data.rare_test, 0, 1)
    above(0, data__frames=data.frames)
    between("data.frames_spread", data.frames_spread, 0, 3)
    between("data.mpii.head_shift", data.mpii.head_shift, 0, 1)
    between("evaluation.least_peak", evaluation.least_peak, 0, 1)
    for key, empty in (("scale", False), ("window", True)):
        pair = tuple(config.augment[key])
        if pair == () and empty:
            continue
        if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
            raise ConfigError(
                f"augment.{key}={pair} must be two factors, 0 < low <= high"
                + (", or ()" if empty else "")
            )
    if data.size % 4:
        raise ConfigError(
            f"data.size={data.size} must be a multiple of 4: heatmaps have a quarter "
            "of it"
        )


def _check_photos(data: ConfigDict) -> None:
    photos = data.photos
    if data.name not in NAMES:
        above(0, data__initial=data.initial)
    elif data.crop == "official":
        raise ConfigError(
            f"data.crop=official is for MPII; data.name={data.name} has boxes: set "
            "data.crop=box"
        )
    if data.groups not in ("none", "folder"):
        try:
            re.compile(data.groups)
        except re.error as error:
            raise ConfigError(
                f"data.groups={data.groups!r} must be none, folder or a regular "
                f"expression: {error}"
            ) from error
    at_least(0, data__photos__test_seed=photos.test_seed)
    if not 0 < photos.test_share < 1:
        raise ConfigError(
            f"data.photos.test_share={photos.test_share} must be above 0, and below 1"
        )
    for key in ("mirror", "links"):
        for pair in photos[key]:
            names = () if isinstance(pair, str) else tuple(pair)
            if len(names) != 2 or not all(isinstance(name, str) for name in names):
                raise ConfigError(
                    f"data.photos.{key}: {pair!r} must be the names of two joints"
                )
    paired = [name for pair in photos.mirror for name in pair]
    for name in paired:
        if paired.count(name) > 1:
            raise ConfigError(
                f"data.photos.mirror: {name!r} is there {paired.count(name)} times, "
                "and changes places with one other joint alone"
            )
