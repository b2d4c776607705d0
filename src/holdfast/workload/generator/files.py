"""Reads and writes parameter sets, shipped or the user's own, and reads studies."""

from __future__ import annotations

import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from holdfast.errors import ConfigError
from holdfast.workload.generator.checks import check_parameters
from holdfast.workload.generator.fit import fitted
from holdfast.workload.generator.parameters import Parameters
from holdfast.workload.study.profile import Profile
from holdfast.workload.study.workload import SCHEMA as STUDY_SCHEMA

__all__ = ["fit_study", "load_set", "set_names", "set_text"]

_DECODERS = {".json": msgspec.json.decode, ".toml": msgspec.toml.decode}
# No string of a set contains a line break.
_NUMBERS = re.compile(r"\[\n([^][{}\"]*)\]")
_Read = TypeVar("_Read", bound=msgspec.Struct)


class _Study(msgspec.Struct):
    """The fields of a study that a fit needs."""

    schema: str
    profiles: dict[str, Profile] = {}


def set_names() -> tuple[str, ...]:
    """Names of the shipped sets, sorted."""
    return tuple(sorted(_shipped()))


def load_set(name_or_path: str | Path) -> Parameters:
    """Read a shipped set, or one from a `.toml` or `.json` file.

    Raises:
        ConfigError: The name is unknown, the file cannot be read, or no session can be generated
            from it; the message has the file and the field.
    """
    shipped = _shipped()
    if isinstance(name_or_path, str) and name_or_path in shipped:
        return _checked(_decoded(shipped[name_or_path], Parameters), name_or_path)
    path = Path(name_or_path)
    if path.suffix not in _DECODERS:
        raise ConfigError(
            f"unknown parameter set {str(name_or_path)!r}",
            hint=f"known: {', '.join(sorted(shipped))}; or a file that ends in "
            f"{' or '.join(_DECODERS)}",
        )
    return _checked(_decoded(path, Parameters), str(path))


def fit_study(path: Path, about: str | None = None) -> Parameters:
    """Fit parameters to a study that `holdfast traces study --json` wrote.

    Args:
        path: The study.
        about: Description of the set; None names the study.

    Raises:
        ConfigError: The file cannot be read or is not such a study; the message has the file and
            the field.
    """
    study = _decoded(path, _Study)
    if study.schema != STUDY_SCHEMA:
        raise ConfigError(
            f"{path}: is not a study; its schema is {study.schema!r}, expected {STUDY_SCHEMA!r}",
            hint="holdfast traces study PATH... --json STUDY.json",
        )
    if not study.profiles:
        raise ConfigError(
            f"{path}: the study has no `profiles`, from which sessions are generated: it is from "
            "an older version, or they were taken out",
            hint="make it again: holdfast traces study PATH... --json STUDY.json",
        )
    try:
        parameters = fitted(study.profiles, about or f"Fitted to {path.name}.")
        # A damaged study must pass the checks of a set that is read from a file.
        parameters = msgspec.convert(msgspec.to_builtins(parameters), Parameters)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"{path}: no set can be fitted to its profiles: {error}") from error
    return _checked(parameters, str(path))


def set_text(parameters: Parameters) -> str:
    """A set as JSON for `load_set`, with each table and session on one line. Pure."""
    text = msgspec.json.format(msgspec.json.encode(parameters), indent=1).decode()
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def _shipped() -> dict[str, Traversable]:
    files = resources.files(__package__).joinpath("sets").iterdir()
    named = ((*file.name.rpartition("."), file) for file in files)
    return {name: file for name, _, suffix, file in named if f".{suffix}" in _DECODERS}


def _decoded(file: Traversable | Path, form: type[_Read]) -> _Read:
    decode: Any = _DECODERS.get(Path(file.name).suffix, msgspec.json.decode)
    try:
        content: _Read = decode(file.read_bytes(), type=form)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, ValueError) as error:  # the latter where it is not UTF-8
        raise ConfigError(f"{file}: {error}") from error
    return content


def _checked(parameters: Parameters, source: str) -> Parameters:
    try:
        check_parameters(parameters)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    return parameters
