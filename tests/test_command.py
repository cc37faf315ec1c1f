"""What every command says of its arguments before JAX starts."""

import re

import pytest

from jalpose import command
from jalpose.settings.checks import ConfigError


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


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--workdir=w", "--config=configs/lsp.py:method=coreset"],
        ["--config", "configs/lsp_eglpp.py:scale=tiny", "--dry_run"],
        ["-config=configs/quickstart.py"],
        ["--config"],  # absl says what is missing
        ["--config.seed=3"],
    ],
)
def test_config_files_that_are_there_pass(arguments):
    command.check_config_file(arguments)


@pytest.mark.parametrize(
    ("given", "now"),
    [
        (
            "configs/lsp_coreset.py:scale=tiny",
            "configs/lsp.py:method=coreset,scale=tiny",
        ),
        ("configs/lsp_coreset.py", "configs/lsp.py:method=coreset"),
        (
            "configs/mpii_expected_gradnorm.py:seed=3,scale=small",
            "configs/mpii.py:method=expected_gradnorm,seed=3,scale=small",
        ),
    ],
)
@pytest.mark.parametrize("apart", [True, False])
def test_a_config_file_of_one_method_is_answered_with_todays_command(given, now, apart):
    arguments = ["--config", given] if apart else [f"--config={given}"]
    message = f"The same is --config={now}"
    with pytest.raises(ConfigError, match=re.escape(message) + "$"):
        command.check_config_file(["--workdir=w", *arguments])


def test_a_config_file_that_is_not_there_is_answered_with_those_there_are():
    message = (
        r"there is no file configs/quikstart\.py\. Did you mean 'configs/quickstart"
        r"\.py'\? There are: configs/\w+\.py, .*configs/quickstart\.py, .*\.py$"
    )
    with pytest.raises(ConfigError, match=message):
        command.check_config_file(["--config=configs/quikstart.py:scale=tiny"])
    with pytest.raises(ConfigError, match=r"there is no file nowhere/x\.py\.$"):
        command.check_config_file(["--config=nowhere/x.py"])


def test_a_workdir_is_named_by_config_scale_and_seed():
    class Config:
        name, scale, seed = "lsp_eglpp", "tiny", 3

    assert command.workdir_of(Config, None) == "runs/lsp_eglpp-tiny-3"
    assert command.workdir_of(Config, "mine") == "mine"
