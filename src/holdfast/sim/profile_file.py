"""Reads cost profiles: shipped ones and an operator's own.

A file has either coefficients, or hardware and model figures from which `sim.roofline` derives
them.
"""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.errors import ConfigError
from holdfast.sim.profile import CostProfile
from holdfast.sim.roofline import RooflineFigures, roofline_profile
from holdfast.small_file import read_small_text

__all__ = ["load_profile", "profile_names"]

_SUFFIXES: Final = (".json", ".toml")


def profile_names() -> tuple[str, ...]:
    """Names of the shipped profiles, sorted."""
    files = resources.files(__package__).joinpath("profiles").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def load_profile(name_or_path: str | Path) -> CostProfile:
    """Read a shipped profile, or one from a `.toml` or `.json` file.

    Args:
        name_or_path: One of `profile_names`, or a file.

    Raises:
        ConfigError: The name is unknown, the file cannot be read, or a value is out of range; the
            message has the file and the key.
    """
    names = profile_names()
    if isinstance(name_or_path, str) and name_or_path in names:
        file = resources.files(__package__).joinpath("profiles", f"{name_or_path}.toml")
        return _profile(tomllib.loads(file.read_text(encoding="utf-8")), file.name)
    path = Path(name_or_path)
    if path.suffix not in _SUFFIXES:
        raise ConfigError(
            f"unknown profile {str(name_or_path)!r}",
            hint=f"known: {', '.join(names)}; or a file that ends in {' or '.join(_SUFFIXES)}",
        )
    return _profile(_content(path), str(path))


def _content(path: Path) -> Any:
    try:
        text = read_small_text(path)
        return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # of either format, or not UTF-8
        raise ConfigError(f"{path}: is not {path.suffix[1:].upper()}: {error}") from error


def _profile(content: Any, source: str) -> CostProfile:
    """Convert coefficients, or derive them from figures; errors name `source`."""
    try:
        if isinstance(content, dict) and "hardware" in content:
            return roofline_profile(msgspec.convert(content, RooflineFigures))
        return msgspec.convert(content, CostProfile)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}", hint=error.hint) from error
