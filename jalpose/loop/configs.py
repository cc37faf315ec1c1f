"""Configs of runs: common keys, those of task, network and methods, put together.

A file in `configs/` names its benchmark and what it changes:

    get_config = benchmark("lsp", delta={...}, scales={...})

and `--config=configs/lsp.py:method=coreset,scale=small,seed=3` picks the rest.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jalpose.acquisition import registry as methods
from jalpose.acquisition.method import Method
from jalpose.loop import papers
from jalpose.models.encoders import ENCODERS
from jalpose.models.registry import MODELS, options_of
from jalpose.pergrad.api import ENGINES
from jalpose.settings import validation
from jalpose.settings.checks import ConfigError, at_least, one_of
from jalpose.settings.differences import modern
from jalpose.settings.keys import (
    check_key,
    common,
    from_base,
    known_keys,
    lookup,
    variants_of,
)
from jalpose.settings.scales import SCALES, Benchmark, Changes
from jalpose.tasks import registry as tasks

GetConfig = Callable[[str], ConfigDict]


def default(task: str = tasks.USUAL, model: str = "") -> ConfigDict:
    """Every key of a task with its default: the papers' protocol at the papers' size.

    Args:
      task: of the registry.
      model: of the registry; "": the task's usual one.
    """
    config, about = common(), tasks.settings_of(task)
    config.task = task
    about.add_keys(config)
    config.model.name = model or about.MODEL
    one_of("model.name", config.model.name, MODELS)
    config.model.update(_fields(MODELS[config.model.name]))
    for name, method in methods.methods().items():
        fields = _fields(method)
        if fields:
            config.acquisition[name] = ConfigDict(fields)
    for key, value in getattr(about, "METHOD_OPTIONS", {}).items():
        check_key(config, key)
        section, _, last = key.rpartition(".")
        lookup(config, section)[last] = value
    return config


def assemble(
    arg: str,
    *,
    name: str,
    delta: Changes | None = None,
    scales: Mapping[str, Changes] | None = None,
    scale: str = "paper",
    task: str = tasks.USUAL,
    model: str = "",
    method: str | None = None,
) -> ConfigDict:
    """Build the configuration of one config file.

    Args:
      arg: what follows the colon of `--config=file.py:...`.
      name: of the config; "{method}" in it stands for the method's.
      delta: dotted keys this config changes at every scale.
      scales: dotted keys it changes at one scale.
      scale: the scale without `scale=`.
      task: see `default`.
      model: see `default`.
      method: without `method=`, which is then known; None: there is no `method=`.

    Raises:
      ConfigError: for unknown arguments, scales, methods, keys, or a seed that is no
        number.
    """
    given = _parse_argument(arg, scale, method)
    config, scale = default(task, given["model"] or model), given["scale"]
    about = tasks.settings_of(task)
    config.scale, config.seed = scale, given["seed"]
    chosen: dict[str, Any] = {}
    if method is not None:
        chosen["acquisition.method"] = given["method"]
        chosen |= methods.methods()[given["method"]].presets
        # Nothing is compared with itself.
        compared: Any = (delta or {}).get("loop.compare", ())
        chosen["loop.compare"] = tuple(m for m in compared if m != given["method"])
    config.name = name.format(method=given.get("method", ""))
    usual, own = scale_changes(config, scale), (scales or {}).get(scale, {})
    changes = {**usual, **(delta or {}), **chosen, **own}
    if config.model.name != (model or about.MODEL):
        # What the benchmark sets of its own network is not for another.
        known = {key for key in changes if not key.startswith("model.")}
        own = {**usual, **chosen, **about.MODEL_OPTIONS.get(config.model.name, {})}
        changes = own | {key: changes[key] for key in known}
    if given["papers"]:
        data = str(changes.get("data.name", config.data.name))
        changes |= papers.changes(task, given["papers"], data)
        config.papers = given["papers"]
    for key, value in changes.items():
        check_key(config, key)
        section, _, last = key.rpartition(".")
        (lookup(config, section) if section else config)[last] = value
    return config.lock()


def of_record(record: Mapping[str, Any]) -> ConfigDict:
    """Today's config of a recorded one of any age.

    Keys that came since have the values that do what was done then; sections of methods
    that are not here are left out.

    Args:
      record: what `config.json` holds under `config`.

    Raises:
      ConfigError: it has a value that no key takes today.
    """
    model = record.get("model", {}).get("name", "")
    config = default(tasks.recorded_in(record), model)
    known = set(known_keys(config))
    for key, value in modern(record).items():
        if key not in known:
            continue
        section, _, last = key.rpartition(".")
        place = lookup(config, section) if section else config
        try:
            place[last] = _as_before(value, place[last])
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"the run was recorded by another version: {key}={value!r} is no value "
                f"of today ({error})"
            ) from error
    return config.lock()


def scale_changes(config: ConfigDict, scale: str) -> dict[str, Any]:
    """What a scale changes of common keys, task, network and methods."""
    model = MODELS[config.model.name]
    found = {
        **SCALES[scale],
        **tasks.settings_of(config.task).SCALES[scale],
        **{f"model.{k}": v for k, v in model.scales.get(scale, {}).items()},
    }
    for name, method in methods.methods().items():
        changed = method.scales.get(scale, {})
        found |= {f"acquisition.{name}.{k}": v for k, v in changed.items()}
    return found


def benchmark(
    benchmark: str,
    *,
    task: str = tasks.USUAL,
    method: str = "eglpp",
    name: str = "",
    delta: Changes | None = None,
    scales: Mapping[str, Changes] | None = None,
    scale: str = "paper",
    model: str = "",
) -> GetConfig:
    """The `get_config` of a config file: a benchmark, with `method=` to choose.

    Args:
      benchmark: of the task's `BENCHMARKS`.
      task: see `default`.
      method: without `method=`.
      name: of the config; "": the benchmark's and the method's.
      delta: what the file changes at every scale beside the benchmark.
      scales: what it changes at one.
      scale: the scale without `scale=`.
      model: see `default`.
    """
    protocol = _benchmark(task, benchmark)
    changes = {**protocol.delta, **(delta or {})}
    merged = _merged(protocol.scales, scales or {})

    def get_config(arg: str = "") -> ConfigDict:
        return assemble(
            arg,
            name=name or f"{benchmark}_{{method}}",
            delta=changes,
            scales=merged,
            scale=scale,
            task=task,
            model=model,
            method=method,
        )

    return get_config


def experiment(
    benchmark: str,
    chosen: Sequence[str],
    seeds: Sequence[int],
    *,
    task: str = tasks.USUAL,
    name: str = "",
    delta: Changes | None = None,
    scales: Mapping[str, Changes] | None = None,
    scale: str = "paper",
    variants: Mapping[str, Sequence[str]] | None = None,
    full: bool = True,
    model: str = "",
) -> GetConfig:
    """The `get_config` of an experiment: a benchmark's protocol, methods and seeds.

    Each seed also has a run on all labels, which the curves are drawn against. What any
    of the methods needs, all have: their networks are to be the same.

    Args:
      benchmark: of the task's `BENCHMARKS`.
      chosen: methods of the acquisition registry, or names of variants.
      seeds: of the runs.
      task: see `default`.
      name: of the config; "": the benchmark's.
      delta: what the file changes at every scale beside the benchmark.
      scales: what it changes at one: small so that all runs together take well under
        an hour on two CPU cores.
      scale: the scale without `scale=`.
      variants: by a name of its own, a method and what it changes of `acquisition`:
        ("eglpp", "acquisition.diverse=lcmd").
      full: with those runs on all labels.
      model: see `default`.
    """
    own = variants or {}
    protocol = _benchmark(task, benchmark)
    changes: dict[str, Any] = {
        **protocol.delta,
        **(delta or {}),
        "experiment.methods": tuple(chosen),
        "experiment.seeds": tuple(seeds),
        "experiment.variants": tuple((one, *rest) for one, rest in own.items()),
        "experiment.full": full,
    }
    for one in chosen:
        method = own[one][0] if one in own else one
        changes |= methods.methods()[method].presets
    merged = _merged(protocol.scales, scales or {})

    def get_config(arg: str = "") -> ConfigDict:
        return assemble(
            arg,
            name=name or benchmark,
            delta=changes,
            scales=merged,
            scale=scale,
            task=task,
            model=model,
        )

    return get_config


def check(config: ConfigDict) -> None:
    """Check every value that can be checked without data or devices.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    one_of("task", config.task, tasks.TASKS)
    papers.check(config)
    one_of("data.name", config.data.name, tasks.sources_of(config.task).SOURCES)
    validation.check(config)
    one_of("acquisition.engine", config.acquisition.engine, ENGINES)
    own, used = _check_variants(config), set()
    for key, names in (
        ("acquisition.method", (config.acquisition.method,)),
        ("loop.compare", config.loop.compare),
        ("experiment.methods", config.experiment.methods),
    ):
        for name in names:
            if name not in own or key == "acquisition.method":
                methods.check_name(key, name)
                used.add(name)
    tasks.settings_of(config.task).check(config)
    _check_model(config)
    for name, method in methods.methods().items():
        options = dict(config.acquisition.get(name, {}))
        # Others as they are by default are nobody's concern: another package's may
        # refuse its own.
        if name in used or options != _usual(method, config.scale):
            methods.method_of(name, options)


def _check_model(config: ConfigDict) -> None:
    options = options_of(dict(config.model))
    learnt = getattr(tasks.settings_of(config.task), "PREDICTS", options.predicts)
    if options.predicts != learnt:
        raise ConfigError(
            f"model.name={config.model.name!r} predicts {options.predicts}, and the "
            f"task {config.task} learns {learnt}: choose a network by --config="
            f"file.py:model=NAME (known: {', '.join(MODELS)})"
        )
    options.check(config.data.size)
    encoder = config.data.encoder
    at_least(0, data__encoder__size=encoder.size)
    one_of("data.encoder.name", encoder.name, ("", *ENCODERS))
    rows_of_images = config.model.name == "mlp" and options.predicts == "logits"
    if bool(encoder.name) != rows_of_images:
        raise ConfigError(
            f"data.encoder.name={encoder.name!r} and model.name={config.model.name!r} "
            "do not go together: a network of rows learns classes from what an encoder "
            "sees, and other networks from images (or from rows) as they are; choose "
            "both by --config=file.py:model=mlp"
        )


def _check_variants(config: ConfigDict) -> Collection[str]:
    """Names of `experiment.variants`, each of which can be made."""
    own = variants_of(config)
    for name, (method, *_) in own.items():
        if name in methods.methods():
            raise ConfigError(f"experiment.variants: {name} is a method's name already")
        methods.check_name(f"experiment.variants: the method of {name}", method)
        changed = from_base(config, name, "").acquisition
        methods.configured(changed, changed.method)
    return own


def check_keys(names: Sequence[str]) -> None:
    """Raise ConfigError for a dotted key that no task and no network knows."""
    known = [default(task) for task in tasks.TASKS]
    options = {f"model.{key}" for one in MODELS.values() for key in _fields(one)}
    for name in names:
        if name in options or any(name in known_keys(config) for config in known):
            continue
        check_key(known[0], name)


def _benchmark(task: str, name: str) -> Benchmark:
    known = tasks.settings_of(task).BENCHMARKS
    one_of(f"the benchmark of the task {task}", name, known)
    return known[name]


def _merged(*tables: Mapping[str, Changes]) -> dict[str, Changes]:
    """Tables by scale, those behind changing what those before say."""
    return {
        scale: {k: v for table in tables for k, v in table.get(scale, {}).items()}
        for scale in SCALES
    }


def _as_before(value: Any, usual: Any) -> Any:
    """A value read from JSON in the kind of the key's usual one."""
    if isinstance(usual, tuple) and isinstance(value, list):
        return _tuples(value)
    if isinstance(usual, float) and isinstance(value, str):
        return float(value)  # "inf", "nan"
    return value


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _usual(method: type[Method], scale: str) -> dict[str, Any]:
    """The options of a method where nobody has changed them."""
    fields = _fields(method)
    # Through a config, as those they are compared with.
    return ConfigDict({**fields, **method.scales.get(scale, {})}).to_dict()


def _fields(options: type) -> dict[str, Any]:
    """The fields of a dataclass of options with their defaults."""
    found = {}
    for field in dataclasses.fields(options):
        if field.default is dataclasses.MISSING:
            raise ConfigError(
                f"{options.__name__}.{field.name} has no default: every option needs "
                "one, of which its config key is made"
            )
        found[field.name] = field.default
    return found


def _parse_argument(arg: str, scale: str, method: str | None) -> dict[str, Any]:
    given: dict[str, Any] = {"scale": scale, "seed": 0, "model": "", "papers": ""}
    known = "scale=tiny|small|paper, seed=N, papers=PRESET, model=NAME"
    if method is not None:
        given["method"], known = method, f"method=NAME, {known}"
    for part in filter(None, (arg or "").split(",")):
        key, equals, value = part.partition("=")
        if key not in given or not equals:
            raise ConfigError(
                f"unknown config argument {part!r}. Known: {known}, separated by commas"
            )
        given[key] = value
    one_of("the config argument scale", given["scale"], SCALES)
    if given["model"]:
        one_of("the config argument model", given["model"], MODELS)
    if method is not None:
        methods.check_name("the config argument method", given["method"])
    try:
        given["seed"] = int(given["seed"])
    except ValueError:
        raise ConfigError(
            f"the config argument seed={given['seed']!r} is not a whole number"
        ) from None
    return given
