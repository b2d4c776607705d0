"""What is known about a policy without building it, its settings among it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from holdfast.errors import PolicyError

__all__ = [
    *("Configured", "Need", "PolicySettings", "PolicySpec"),
    *("convert_settings", "read_settings"),
]


class Need(enum.StrEnum):
    """What a policy must be told beyond what an engine sees."""

    FUTURE = "future"


class PolicySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Base of a policy's settings: fields with defaults, and ranges by `msgspec.Meta`."""


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """What is known about a policy without building it.

    Attributes:
        name: As the command line and results call it, settings included.
        summary: What it does, one sentence.
        source: Where the idea comes from.
        differs: How what runs here differs from the source; "" where it does not.
        needs: What it must be told. A policy that needs the future exists only in the simulator.
        settings: Its settings, whose defaults are the source's; None where it has none.
        variants: Settings of Holdfast that a simulator tries in turn, to report the best; for
            bounds.
    """

    name: str
    summary: str
    source: str
    differs: str = ""
    needs: frozenset[Need] = frozenset()
    settings: type[PolicySettings] | None = None
    variants: tuple[dict[str, object], ...] = ({},)


class Configured:
    """What policies of every contract have.

    Args:
        settings: Of the kind that `spec` names; not given where it names none.

    Attributes:
        spec: Name, source, needs and kind of settings.
        settings: See the argument.
    """

    spec: ClassVar[PolicySpec]
    settings: Any

    def __init__(self, settings: PolicySettings | None = None) -> None:
        self.settings = settings


def read_settings(
    name: str, kind: type[PolicySettings] | None, pairs: Iterable[str]
) -> PolicySettings | None:
    """A policy's settings; those that `pairs` do not name keep their defaults. Pure.

    Args:
        name: The policy, for messages.
        kind: Its settings.
        pairs: What is set, as `key=value`.

    Raises:
        PolicyError: A key is unknown or set twice, its value has the wrong type or is out of range,
            or values contradict each other.
    """
    types = {field.name: field.type for field in msgspec.structs.fields(kind)} if kind else {}
    hint = f"settings of {name}: {', '.join(types) or 'none'}"
    values: dict[str, Any] = {}
    for pair in pairs:
        key, is_set, text = pair.partition("=")
        if key not in types or not is_set:
            raise PolicyError(f"policy {name!r} has no setting {pair!r}", hint=hint)
        if key in values:
            raise PolicyError(f"policy {name!r}: {key} is set twice", hint=hint)
        try:
            values[key] = msgspec.convert(text, types[key], strict=False)
        except msgspec.ValidationError as error:
            raise PolicyError(f"policy {name!r}: {key} is {text!r}: {error}", hint=hint) from error
    try:
        return None if kind is None else kind(**values)
    except ValueError as error:
        raise PolicyError(f"policy {name!r}: {error}", hint=hint) from error


def convert_settings(
    name: str, kind: type[PolicySettings] | None, values: Mapping[str, object]
) -> PolicySettings | None:
    """A policy's settings from decoded values, such as a table of TOML. Pure.

    Args:
        name: The policy, for messages.
        kind: Its settings.
        values: What is set; the others keep their defaults.

    Raises:
        PolicyError: A key is unknown, its value has the wrong type or is out of range, or values
            contradict each other.
    """
    known = [field.name for field in msgspec.structs.fields(kind)] if kind else []
    for key in values:
        if key not in known:
            hint = f"settings of {name}: {', '.join(known) or 'none'}"
            raise PolicyError(f"policy {name!r} has no setting {key!r}", hint=hint)
    try:
        return None if kind is None else msgspec.convert(values, kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise PolicyError(f"policy {name!r}: {error}") from error
