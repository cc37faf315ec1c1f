"""What every config key means, from the comments and docstrings that it stands with.

    python -m jalpose.main --config_help=training --config=quickstart

Common keys and those of tasks are explained by the comments where they are set, options
of networks and methods by the `Attributes` of their docstrings: nothing is written
twice.
"""

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Callable
from types import ModuleType

from ml_collections import ConfigDict

from jalpose.acquisition import registry as methods
from jalpose.models.registry import MODELS
from jalpose.settings import keys
from jalpose.settings.checks import ConfigError, did_you_mean
from jalpose.tasks import registry as tasks

WIDTH = 88


def show(config: ConfigDict, section: str = "") -> str:
    """The keys of a section with their values and meaning; "": the sections.

    Args:
      config: whose values are shown.
      section: dotted name of a section or key; "all": every key.

    Raises:
      ConfigError: there is none of that name.
    """
    known = keys.by_section(config)
    if not section:
        return _overview(known)
    wanted = [k for k in known if section == "all" or f"{k}.".startswith(f"{section}.")]
    if not wanted:
        names = sorted({*known, *_sections(known)})
        raise ConfigError(
            f"--config_help={section}: no section and no key has this name; "
            f"--config_help lists them.{did_you_mean(section, names)}"
        )
    meanings = meanings_of(config)
    lines = []
    for key in wanted:
        lines.append(f"{key} = {keys.lookup(config, key)!r}")
        lines += textwrap.wrap(
            meanings.get(key, ""),
            WIDTH,
            initial_indent="    ",
            subsequent_indent="    ",
        )
    return "\n".join(lines)


def meanings_of(config: ConfigDict) -> dict[str, str]:
    """What each key of a config means, by dotted key."""
    about = tasks.settings_of(config.task)
    added = [about.add_keys]
    added += [
        module.add
        for module in vars(about).values()
        if isinstance(module, ModuleType) and hasattr(module, "add")
    ]
    found = _of_comments(keys.common)
    for function in added:
        found |= {k: text for k, text in _of_comments(function).items() if text}
    found["model.name"] = ", ".join(MODELS) + ": the options are that network's"
    options = {f"model.{k}": v for k, v in _of_options(MODELS[config.model.name])}
    for name, method in methods.methods().items():
        options |= {f"acquisition.{name}.{k}": v for k, v in _of_options(method)}
    return found | options


def _overview(known: list[str]) -> str:
    counts: dict[str, int] = {}
    for section in _sections(known, deepest=True):
        counts[section] = 0
    for key in known:
        section = key.rpartition(".")[0]
        counts[section] = counts.get(section, 0) + 1
    top = ", ".join(key for key in known if "." not in key)
    width = max(map(len, counts))
    lines = [f"{name:<{width}}  {n:>3} keys" for name, n in counts.items() if name]
    return "\n".join(
        [
            *lines,
            f"and by themselves: {top}",
            "",
            "--config_help=SECTION says what the keys of a section mean, "
            "--config_help=all of every one;",
            "--config.SECTION.KEY=VALUE changes one.",
        ]
    )


def _sections(known: list[str], deepest: bool = False) -> list[str]:
    found: dict[str, None] = {}
    for key in known:
        parts = key.split(".")[:-1]
        for depth in [len(parts)] if deepest else range(1, len(parts) + 1):
            found[".".join(parts[:depth])] = None
    return [name for name in found if name]


def _of_options(kind: type) -> list[tuple[str, str]]:
    """Fields of a dataclass of options and their meaning, else its bases'."""
    found: dict[str, str] = {}
    for one in kind.__mro__:
        for name, text in _attributes(inspect.cleandoc(one.__doc__ or "")).items():
            found.setdefault(name, text)
    fields = getattr(kind, "__dataclass_fields__", {})
    return [(name, found.get(name, "")) for name in fields]


def _attributes(doc: str) -> dict[str, str]:
    """Names and texts below "Attributes:" of a docstring."""
    _, there, rest = doc.partition("Attributes:\n")
    block = re.split(r"\n(?=\S)", rest)[0] if there else ""
    pieces = re.split(r"^  (\w+): ", block, flags=re.MULTILINE)
    return {
        name: " ".join(text.split())
        for name, text in zip(pieces[1::2], pieces[2::2], strict=True)
    }


def _of_comments(function: Callable) -> dict[str, str]:
    """Dotted keys that a function sets, with the comments above and beside them.

    A key without any has that of the one directly above it, which is of both.
    """
    source = textwrap.dedent(inspect.getsource(function))
    comments, whole = _comments(source)
    names: dict[str, str] = {"config": ""}
    found: dict[str, str] = {}
    last, text = -1, ""
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.FunctionDef)
    for node in body.body:
        if not isinstance(node, ast.Assign) or not isinstance(
            node.targets[-1], ast.Attribute | ast.Name
        ):
            continue
        own = [comments[n] for n in _above(node.lineno, whole)]
        beside = comments.get(node.end_lineno or node.lineno, "")
        own += [beside] if beside else []
        if own or node.lineno != last + 1:
            text = " ".join(own)
        last = node.end_lineno or node.lineno
        key = _dotted(node.targets[-1], names)
        if _is_section(node.value):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    names[target.id] = key
        elif isinstance(node.value, ast.Attribute) and isinstance(
            node.targets[0], ast.Name
        ):
            names[node.targets[0].id] = _dotted(node.value, names)
        elif "." in key or isinstance(node.targets[-1], ast.Attribute):
            found[key] = text
    return found


def _comments(source: str) -> tuple[dict[int, str], set[int]]:
    """Comments by line, and the lines that hold nothing else."""
    found, whole = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, column = token.start
            found[line] = token.string.lstrip("# ")
            if not token.line[:column].strip():
                whole.add(line)
    return found, whole


def _above(line: int, whole: set[int]) -> list[int]:
    first = line
    while first - 1 in whole:
        first -= 1
    return list(range(first, line))


def _is_section(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func) == "ConfigDict"


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """The key that an expression as `data.crop` stands for."""
    first, _, rest = ast.unparse(node).partition(".")
    start = names.get(first, first)
    return ".".join(part for part in (start, rest) if part)
