"""Hints that clients send about their sessions, in any of several dialects.

Hints are advisory: every value is checked and cut to a range, a bad one is left out and reported,
and none can raise. `DIALECTS` maps keys to hints.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.core.bounded_name import bounded_name
from holdfast.tool_calls.syntax import make_call
from holdfast.tool_calls.turn_end import TurnEnd, turn_end_of

__all__ = ["DIALECTS", "Dialect", "Hints", "parse_hints"]

_MAX_ID_BITS = 4096
_MAX_NUMBER_CHARS = 32
_MAX_NESTED_CHARS = 1 << 16
_MAX_COMMAND_CHARS = 1024
_MAX_HINT_S = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Hints:
    """Hints of one request.

    Attributes:
        session_id: The request's session.
        parent_session_id: The session that spawned this one.
        agent_id: The agent that sends the request.
        turn_end: How this turn will end, announced in advance; replaces, once the turn has ended,
            the turn end read from its output.
        is_final: Whether the session ends with this turn.
        expected_gap_s: Length of the pause after this turn that the client expects (s).
        retain_s: Time after this turn for which the client asks to retain its cache (s).
    """

    session_id: str | None = None
    parent_session_id: str | None = None
    agent_id: str | None = None
    turn_end: TurnEnd | None = None
    is_final: bool = False
    expected_gap_s: float | None = None
    retain_s: float | None = None


_NO_HINTS = Hints()


class _BadHintError(ValueError):
    """A hint's value cannot be used; the message gives the reason."""


def _identity(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if value.bit_length() <= _MAX_ID_BITS else value
    if not isinstance(value, str):
        raise _BadHintError("must be a string")
    value = value.strip()
    if not value:
        raise _BadHintError("must not be empty")
    if not value.isprintable():
        raise _BadHintError("has unprintable characters")
    return bounded_name(value)


def _flag(value: object) -> bool:
    if isinstance(value, str):
        value = {"true": 1, "1": 1, "yes": 1, "false": 0, "0": 0, "no": 0}.get(value.casefold())
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise _BadHintError("must be true or false")


def _seconds(value: object) -> float:
    if isinstance(value, str) and len(value) <= _MAX_NUMBER_CHARS:
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _BadHintError("must be a number of seconds")
    # Comparing before converting: an int may be too large for a float.
    if not value >= 0 or value == math.inf:
        raise _BadHintError("must be a finite number >= 0")
    return float(min(value, _MAX_HINT_S))


def _milliseconds(value: object) -> float:
    if isinstance(value, int) and not isinstance(value, bool):
        value = min(value, 10**15)
    return _seconds(_number(value) / 1e3)


def _ttl(value: object) -> float:
    """Read seconds, or a text such as "5m" or "1h"."""
    if isinstance(value, str) and value[-1:] in ("s", "m", "h"):
        return _seconds(_number(value[:-1]) * {"s": 1.0, "m": 60.0, "h": 3600.0}[value[-1]])
    return _seconds(value)


def _number(value: object) -> float:
    if isinstance(value, str) and len(value) <= _MAX_NUMBER_CHARS:
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _BadHintError("must be a number")
    return float(value)


def _turn_end(value: object) -> TurnEnd:
    if not isinstance(value, str):
        raise _BadHintError("must be a string")
    if value == "human":
        return TurnEnd("human")
    if value == "tool":
        return TurnEnd("tool")
    kind, _, tool = value.partition(":")
    if kind != "tool":
        raise _BadHintError('must be "human", "tool", "tool:<name>" or "tool:<name> <command>"')
    name, _, command = tool.strip().partition(" ")
    call = make_call(name, _shell_arguments(command) if command else "")
    if call is None:
        raise _BadHintError("the tool's name is empty, too long or has unusable characters")
    return turn_end_of((call,))


def _shell_arguments(command: str) -> str:
    """Return arguments of a call of `command`, in the background after a final `&`."""
    command = command[:_MAX_COMMAND_CHARS].strip()
    foreground = command.removesuffix("&").rstrip()
    arguments: dict[str, object] = {"command": foreground}
    if foreground != command:
        arguments["run_in_background"] = True
    return json.dumps(arguments)


HintField = Literal[
    "session_id",
    "parent_session_id",
    "agent_id",
    "turn_end",
    "is_final",
    "expected_gap_s",
    "retain_s",
]
_IDENTITY_FIELDS = ("session_id", "parent_session_id", "agent_id")


@dataclass(frozen=True, slots=True)
class Dialect:
    """One schema of hints.

    Attributes:
        source: Field of the request that contains its keys.
        under: Key of the object in `source` that contains them; "" for `source` itself.
        keys: Key, hint field and reader; a dot leads into a nested object. Of several keys for one
            field the first that is present counts.
    """

    source: Literal["vllm_xargs", "kv_transfer_params"]
    under: str
    keys: tuple[tuple[str, HintField, Callable[[Any], object]], ...]


_OWN_KEYS: tuple[tuple[str, HintField, Callable[[Any], object]], ...] = (
    ("session_id", "session_id", _identity),
    ("parent_session_id", "parent_session_id", _identity),
    ("agent_id", "agent_id", _identity),
    ("turn_end", "turn_end", _turn_end),
    ("final", "is_final", _flag),
    ("expected_gap_s", "expected_gap_s", _seconds),
    ("retain_s", "retain_s", _seconds),
)

# In order of precedence. All ids come from the first dialect that names a session: ids of
# different schemas do not belong together.
DIALECTS: tuple[Dialect, ...] = (
    # Flat, because `vllm_xargs` does not nest; with the engine's own `session_id`.
    Dialect(
        "vllm_xargs",
        "",
        (
            *((f"holdfast_{key}", field, read) for key, field, read in _OWN_KEYS),
            ("session_id", "session_id", _identity),
        ),
    ),
    Dialect("kv_transfer_params", "holdfast", _OWN_KEYS),
    # Routers' agentic context, sent as an object or as JSON text.
    Dialect(
        "vllm_xargs",
        "agentic_context",
        (
            ("program_id", "session_id", _identity),
            ("parent_program_id", "parent_session_id", _identity),
            ("agent_role", "agent_id", _identity),
        ),
    ),
    # vLLM's proposed hint body, also used by trainers that send a trajectory.
    Dialect(
        "kv_transfer_params",
        "agent_hint",
        (
            ("session_id", "session_id", _identity),
            ("trajectory_id", "session_id", _identity),
            ("parent_session_id", "parent_session_id", _identity),
            ("cache_control.ttl", "retain_s", _ttl),
        ),
    ),
    Dialect(
        "kv_transfer_params",
        "agent_hints",
        (
            ("session_id", "session_id", _identity),
            ("parent_session_id", "parent_session_id", _identity),
            ("agent_id", "agent_id", _identity),
            ("cache_ttl_ms", "retain_s", _milliseconds),
        ),
    ),
    Dialect(
        "kv_transfer_params",
        "agent_context",
        (
            ("trajectory_id", "session_id", _identity),
            ("session_id", "session_id", _identity),
            ("parent_trajectory_id", "parent_session_id", _identity),
            ("trajectory_final", "is_final", _flag),
        ),
    ),
)


def parse_hints(
    xargs: Mapping[str, Any] | None, kv_transfer_params: Mapping[str, Any] | None
) -> tuple[Hints, tuple[str, ...]]:
    """Read the hints of a request. Pure; never raises.

    Args:
        xargs: The request's `vllm_xargs`.
        kv_transfer_params: The request's `kv_transfer_params`.

    Returns:
        The hints, and for each rejected one its key and the reason. Unknown keys are ignored: they
        may belong to other software.
    """
    if not xargs and not kv_transfer_params:
        return _NO_HINTS, ()
    sources = {"vllm_xargs": xargs, "kv_transfer_params": kv_transfer_params}
    values: dict[str, Any] = {}
    rejected: list[str] = []
    for dialect in DIALECTS:
        body = _body(sources[dialect.source], dialect, rejected)
        if body:
            found = _read(body, dialect, rejected)
            if "session_id" in values:
                for name in _IDENTITY_FIELDS:
                    found.pop(name, None)  # an id of another schema
            elif "session_id" in found:
                for name in _IDENTITY_FIELDS:
                    values.pop(name, None)
            values = found | values
    return Hints(**values), tuple(rejected)


def _body(
    source: Mapping[str, Any] | None, dialect: Dialect, rejected: list[str]
) -> Mapping[str, Any] | None:
    if not isinstance(source, Mapping) or not dialect.under:
        return source if isinstance(source, Mapping) else None
    body = source.get(dialect.under)
    if isinstance(body, str) and len(body) <= _MAX_NESTED_CHARS:
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            body = ""
    if body is None or isinstance(body, Mapping):
        return body
    rejected.append(f"{dialect.source}.{dialect.under}: must be an object")
    return None


def _read(body: Mapping[str, Any], dialect: Dialect, rejected: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, field, read in dialect.keys:
        value = _lookup(body, key)
        if value is None or field in found:
            continue
        try:
            found[field] = read(value)
        except (_BadHintError, OverflowError) as error:
            where = ".".join(part for part in (dialect.source, dialect.under, key) if part)
            rejected.append(f"{where}: {error}")
    return found


def _lookup(body: Mapping[str, Any], key: str) -> object:
    value: object = body
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
