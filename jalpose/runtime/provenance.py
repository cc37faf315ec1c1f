"""What a result came from: config, versions, device and revision, for its record."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import jax

PACKAGES = ("jalpose", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe(config: dict) -> dict:
    """A plain config, versions of Python and `PACKAGES`, device and git revision."""
    device = jax.devices()[0]
    return {
        "config": config,
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in PACKAGES},
        },
        "device": {
            "kind": device.device_kind,
            "platform": device.platform,
            "count": jax.device_count(),
            "xla_flags": os.environ.get("XLA_FLAGS", ""),
        },
        "git": _git_revision(),
    }


def _git_revision() -> str | None:
    folder = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
