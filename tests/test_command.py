"""What every command says of its arguments before JAX starts."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from jalpose import command
from jalpose.settings import config_files
from jalpose.settings.checks import ConfigError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--config=configs/x.py:scale=tiny", "--workdir=w", "--dry_run"],
        ["--config.training.batch=8", "-config.seed=3", "--config.loop.cycles", "4"],
        ["config.nothing=3"],  # no flag
    ],
)
def test_known_overrides_pass(arguments):
    command.check_overrides(arguments)


@pytest.mark.parametrize("argument", ["--config.trainig.batch=8", "-config.data=3"])
def test_unknown_overrides_are_refused(argument):
    with pytest.raises(ConfigError, match="unknown config key"):
        command.check_overrides(["--workdir=w", argument])


SHIPPED = config_files.shipped()


@pytest.mark.parametrize(
    ("given", "name", "rest"),
    [
        ("quickstart", "quickstart", ""),
        ("quickstart.py:scale=tiny", "quickstart", ":scale=tiny"),
        ("configs/lsp.py:method=coreset,seed=3", "lsp", ":method=coreset,seed=3"),
        ("experiments/lsp:scale=tiny", "experiments/lsp", ":scale=tiny"),
    ],
)
@pytest.mark.parametrize("apart", [True, False])
def test_shipped_configs_are_found_from_anywhere(
    tmp_path, monkeypatch, given, name, rest, apart
):
    monkeypatch.chdir(tmp_path)
    arguments = ["--config", given] if apart else [f"--config={given}"]
    *_, found = command.with_config_files(["--workdir=w", *arguments])
    assert found.removeprefix("--config=") == f"{SHIPPED[name]}{rest}"
    assert SHIPPED[name].is_file()


def test_a_file_that_is_there_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").write_text("")
    for given in ("quickstart", "./quickstart:seed=3"):
        arguments = [f"--config={given}", "--config.seed=3"]
        assert command.with_config_files(arguments) == arguments


def test_the_wheel_has_the_configs():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"][
        "build"
    ]["targets"]["wheel"]
    assert wheel["force-include"] == {"configs": "jalpose/configs"}
    assert {path.stem for path in (ROOT / "configs").glob("*.py")} <= SHIPPED.keys()


def test_configs_inside_an_installed_package_are_found(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "jalpose"
    (package / "configs" / "experiments").mkdir(parents=True)
    (package / "configs" / "experiments" / "mine.py").write_text("")
    monkeypatch.setattr(config_files, "_PACKAGE", package)
    assert list(config_files.shipped()) == ["experiments/mine"]
    found = config_files.resolve("experiments/mine:seed=1")
    assert found == f"{package / 'configs/experiments/mine.py'}:seed=1"


@pytest.mark.parametrize(
    ("given", "now"),
    [
        ("configs/lsp_coreset.py:scale=tiny", "lsp:method=coreset,scale=tiny"),
        ("lsp_coreset", "lsp:method=coreset"),
        (
            "configs/mpii_expected_gradnorm.py:seed=3,scale=small",
            "mpii:method=expected_gradnorm,seed=3,scale=small",
        ),
    ],
)
def test_a_config_file_of_one_method_is_answered_with_todays_command(given, now):
    message = f"The same is --config={now}"
    with pytest.raises(ConfigError, match=re.escape(message) + "$"):
        command.with_config_files([f"--config={given}"])


# Each a line on standard error and exit code 2, the nearest name last.
MISTAKES = {
    "--config=configs/quikstart.py:scale=tiny": r"Shipped are: .*mean 'quickstart'\?",
    "--config=nowhere/x.py": r"no file nowhere/x\.py, and no shipped config .*svhn\.",
    "--config": r"--config names no file, e\.g\. --config=quickstart",
    "--workdir=w": r"--config is missing, .*There are: .*quickstart, .*",
    "--config=quickstart --workdri=w": r"unknown flag --workdri\. Did.* 'workdir'.",
    "--config=quickstart --config.acquisition.budgt=3": (
        r"unknown config key 'acquisition\.budgt'\..* mean 'acquisition\.budget'\?"
    ),
    "--config=quickstart --config.acquisition.budget=abc": r".*budget.*abc.*",
    "--config=quickstart --dry_run=perhaps": r".*dry_run.*perhaps.*",
    "--config=quickstart also": r"unexpected arguments: also",
    "--config=quickstart --config_help=trainng": r".*lists them\. .*mean 'training'\?",
}


@pytest.mark.parametrize("given", MISTAKES)
def test_a_mistake_is_told_in_one_line_with_the_nearest_name_last(
    given, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["main", *given.split()])
    values = flags.FlagValues()
    for name in ("workdir", "dry_run"):
        define = flags.DEFINE_bool if name == "dry_run" else flags.DEFINE_string
        define(name, None, name, flag_values=values)
    config_flags.DEFINE_config_file("config", None, "", flag_values=values)
    monkeypatch.setattr(command.flags, "FLAGS", values)
    # As absl's: it parses, runs and exits.
    monkeypatch.setattr(
        command.app,
        "run",
        lambda main, flags_parser: sys.exit(main(flags_parser(sys.argv))),
    )
    with pytest.raises(SystemExit) as ended:
        command.cli(command.refuse_arguments)
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert re.fullmatch(rf"error: .*{MISTAKES[given]}\n", told), told


def test_what_an_error_lists_is_put_on_its_line():
    error = ConfigError("they differ (there -> now):\n  a: 1 -> 2\n  b: 3 -> 4")
    assert command.one_line(error) == "they differ (there -> now): a: 1 -> 2; b: 3 -> 4"


def test_an_interrupt_is_told_in_one_line(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert command.attempt(interrupt) == 130
    assert capsys.readouterr().err == "interrupted: what was saved before stays\n"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--config_help"], r"training +\d+ keys\n"),
        (["--config_help=training"], r"training\.batch = 16\n    examples a step"),
        (["--config_help=seed"], r"seed = 0\n    of everything that is drawn"),
    ],
)
def test_config_help_needs_no_config(monkeypatch, capsys, arguments, shown):
    monkeypatch.setattr(sys, "argv", ["main", *arguments])
    command.cli(command.refuse_arguments)
    assert re.search(shown, capsys.readouterr().out)


def test_a_workdir_is_named_by_config_scale_and_seed():
    class Config:
        name, scale, seed = "lsp_eglpp", "tiny", 3

    assert command.workdir_of(Config, None) == "runs/lsp_eglpp-tiny-3"
    assert command.workdir_of(Config, "mine") == "mine"
