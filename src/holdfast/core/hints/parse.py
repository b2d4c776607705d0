"""Reads the hints of a request, in whatever dialects they are.

Hints are advisory: every value is checked and cut to a range, a bad one is left out and reported,
and none can raise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from holdfast.core.hints.dialects import DIALECTS, Dialect, Source
from holdfast.core.hints.fields import CARRIER_KEY, MAX_CARRIER_CHARS
from holdfast.core.hints.readers import MAX_HINT_S, BadHintError, Clipped
from holdfast.core.hints.record import IDENTITY_FIELDS, HintNote, Hints

__all__ = ["parse_hints"]

_NO_HINTS: Final = Hints()
_MAX_NESTED_CHARS: Final = 1 << 16
_MAX_COMMANDS: Final = 16

_Sources = Mapping[Source, Mapping[str, Any] | None]


def parse_hints(
    xargs: Mapping[str, Any] | None,
    kv_transfer_params: Mapping[str, Any] | None,
    kv_hints: Mapping[str, Any] | None = None,
    epoch_s: float = 0.0,
) -> tuple[Hints, tuple[HintNote, ...]]:
    """Read the hints of a request. Pure; never raises.

    Args:
        xargs: The request's `vllm_xargs`, with the fields of its body that the middleware copied.
        kv_transfer_params: The request's `kv_transfer_params`.
        kv_hints: The request's `kv_hints`, as a mapping.
        epoch_s: Time now, since 1970 (s), for hints that name a time of day.

    Returns:
        The hints, and the outcome of each: accepted, clipped or rejected. Unknown keys are
        ignored: they may belong to other software.
    """
    if not xargs and not kv_transfer_params and not kv_hints:
        return _NO_HINTS, ()
    notes: list[HintNote] = []
    sources: _Sources = {
        "vllm_xargs": xargs,
        "kv_transfer_params": kv_transfer_params,
        "body": _body_fields(xargs, kv_transfer_params, notes),
        "kv_hints": kv_hints,
    }
    values: dict[str, Any] = {}
    for dialect in DIALECTS:
        for source in dialect.sources:
            body = _body(source, sources[source], dialect, notes)
            if body:
                _add(values, _read(body, source, dialect, notes))
    lease_until_s = values.pop("lease_until_s", None)
    if lease_until_s is not None and "retain_s" not in values:
        values["retain_s"] = min(max(lease_until_s - epoch_s, 0.0), MAX_HINT_S)
    return Hints(**values), tuple(notes)


def _add(values: dict[str, Any], found: dict[str, Any]) -> None:
    """Add the values of a dialect of lower precedence. Mutates `values`."""
    if "session_id" in values:
        for name in IDENTITY_FIELDS:
            found.pop(name, None)  # an id of another schema
    elif "session_id" in found:
        for name in IDENTITY_FIELDS:
            values.pop(name, None)
    commands = (*values.get("commands", ()), *found.pop("commands", ()))[:_MAX_COMMANDS]
    if commands:
        values["commands"] = commands
    for name, value in found.items():
        values.setdefault(name, value)


def _body_fields(
    xargs: Mapping[str, Any] | None,
    kv_transfer_params: Mapping[str, Any] | None,
    notes: list[HintNote],
) -> Mapping[str, Any] | None:
    """The fields of the body that the middleware copied."""
    carried = xargs.get(CARRIER_KEY) if isinstance(xargs, Mapping) else None
    where = f"vllm_xargs.{CARRIER_KEY}"
    if carried is None and isinstance(kv_transfer_params, Mapping):
        own = kv_transfer_params.get("holdfast")
        carried = own.get("body") if isinstance(own, Mapping) else None
        where = "kv_transfer_params.holdfast.body"
    if carried is None:
        return None
    if isinstance(carried, str) and len(carried) > MAX_CARRIER_CHARS:
        notes.append(HintNote("body", "rejected", where, "is too long"))
        return None
    return _object(carried, where, "body", notes)


def _body(
    source: Source, found: Mapping[str, Any] | None, dialect: Dialect, notes: list[HintNote]
) -> Mapping[str, Any] | None:
    if not isinstance(found, Mapping) or not dialect.under:
        return found if isinstance(found, Mapping) else None
    body = found.get(dialect.under)
    return None if body is None else _object(body, f"{source}.{dialect.under}", "object", notes)


def _object(
    value: object, where: str, field: str, notes: list[HintNote]
) -> Mapping[str, Any] | None:
    """An object, or the object that a JSON text has; anything else is rejected."""
    if isinstance(value, str) and len(value) <= _MAX_NESTED_CHARS:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if isinstance(value, Mapping):
        return value
    notes.append(HintNote(field, "rejected", where, "must be an object"))
    return None


def _read(
    body: Mapping[str, Any], source: Source, dialect: Dialect, notes: list[HintNote]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, field, read in dialect.keys:
        value = _lookup(body, key)
        if value is None or (field in found and field != "commands"):
            continue
        where = ".".join(part for part in (source, dialect.under, key) if part)
        try:
            several = read(value)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            reason = str(error) if isinstance(error, BadHintError) else "cannot be read"
            notes.append(HintNote(field, "rejected", where, reason))
            continue
        values = several if isinstance(several, dict) else {field: several}
        for name, one in values.items():
            _take(found, name, one, where, notes)
    return found


def _take(
    found: dict[str, Any], name: str, value: object, where: str, notes: list[HintNote]
) -> None:
    """Add one value of a dialect. Mutates `found` and `notes`."""
    field = "retain_s" if name == "lease_until_s" else name
    if isinstance(value, Clipped):
        notes.append(HintNote(field, "clipped", where, value.reason))
        value = value.value
    elif isinstance(value, float) and not math.isfinite(value):
        notes.append(HintNote(field, "rejected", where, "must be a finite number"))
        return
    elif value is None or value == ():
        return
    else:
        notes.append(HintNote(field, "accepted", where))
    if name == "commands":
        found[name] = (*found.get(name, ()), *value)  # type: ignore[misc]
    else:
        found.setdefault(name, value)


def _lookup(body: Mapping[str, Any], key: str) -> object:
    value: object = body
    for part in key.split(".") if key else ():
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
