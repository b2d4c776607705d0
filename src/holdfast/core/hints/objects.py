"""Readers of hints that are objects or lists, with values for several fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from holdfast.core.hints.readers import (
    BadHintError,
    Clipped,
    read_flag,
    read_identity,
    read_milliseconds,
    read_reversed_priority,
    read_seconds,
    read_ttl,
)
from holdfast.core.hints.record import CacheCommand
from holdfast.tool_calls.syntax import make_call
from holdfast.tool_calls.turn_end import TurnEnd, turn_end_of

__all__ = [
    "read_actions",
    "read_cache_control",
    "read_curve",
    "read_directives",
    "read_edits",
    "read_evict_flag",
    "read_next_tool",
    "read_prefetch_flag",
    "read_session_control",
]

Fields = dict[str, object]
"""Values by field; a value may be `Clipped`."""

_MAX_ITEMS: Final = 16
_MAX_ARGUMENT_CHARS: Final = 4096
_DEFAULT_TTL_S: Final = 300.0  # of vLLM's and SGLang's cache_control and session_control
_PROTOCOLS: Final = ("0.1",)
_WHOLE: Final = "applies to the whole session: a range of blocks is of use with all before it"
_ACTIONS: Final[Mapping[str, str]] = {
    "prefetch": "prefetch",
    "demote": "evict",
    "offload": "evict",
    "evict": "evict",
    "pin": "retain",
    "retain": "retain",
}


def read_cache_control(value: object) -> Fields:
    """Read `{"type": "ephemeral", "ttl": seconds}`, for 300 s without a `ttl`. Pure."""
    ttl = _object(value).get("ttl")
    return {"retain_s": _DEFAULT_TTL_S if ttl is None else read_ttl(ttl)}


def read_edits(value: object) -> Fields:
    """Read `{"edits": [{"type": "evict" | "offload" | "prefetch"}, ...]}`. Pure."""
    edits = _object(value).get("edits", ())
    commands: list[CacheCommand] = []
    is_cut = False
    for edit in _objects(edits):
        commands.append(_command(edit.get("type"), None, None))
        is_cut |= any(edit.get(key) not in (None, 0) for key in ("block_start", "block_end"))
    found = tuple(commands)
    return {"commands": Clipped(found, _WHOLE) if is_cut and found else found}


def read_directives(value: object) -> Fields:
    """Read `[{"start", "end", "priority": 0 to 100, "duration": seconds}, ...]`. Pure.

    The longest duration and the highest priority count for the whole session.
    """
    durations: list[float] = []
    priorities: list[int] = []
    is_cut = False
    for directive in _objects(value):
        if (duration := directive.get("duration")) is not None:
            durations.append(_number(read_seconds(duration)))
        if (priority := directive.get("priority")) is not None:
            priorities.append(round(_number(read_reversed_priority(priority))))
        is_cut |= directive.get("start") not in (None, 0) or directive.get("end") is not None
    found: Fields = {}
    if durations:
        found["retain_s"] = Clipped(max(durations), _WHOLE) if is_cut else max(durations)
    if priorities:
        found["priority"] = min(priorities)
    return found


def read_actions(value: object) -> Fields:
    """Read the envelope `{"protocol_version": "0.1", "actions": [...]}`. Pure."""
    envelope = _object(value)
    if envelope.get("protocol_version") not in _PROTOCOLS:
        raise BadHintError(f"protocol_version must be one of {', '.join(_PROTOCOLS)}")
    commands = []
    for action in _objects(envelope.get("actions", ())):
        payload = _object(action.get("payload") or {})
        target = payload.get("target")
        named = payload if not isinstance(target, Mapping) else {**payload, **target}
        session_id = named.get("session_id", named.get("session"))
        commands.append(_command(action.get("action_type"), session_id, _ttl_of(payload)))
    return {"commands": tuple(commands)}


def read_session_control(value: object) -> Fields:
    """Read `{"session_id", "action": "open" | "bind" | "close", "timeout"}`. Pure."""
    control = _object(value)
    found: Fields = {}
    if (session_id := control.get("session_id")) is not None:
        found["session_id"] = read_identity(session_id)
    action = control.get("action")
    if action == "close":
        found["is_final"] = True
    elif action in ("open", "bind"):
        timeout = control.get("timeout")
        found["retain_s"] = _DEFAULT_TTL_S if timeout is None else read_seconds(timeout)
    elif action is not None:
        raise BadHintError('action must be "open", "bind" or "close"')
    return found


def read_next_tool(value: object) -> TurnEnd:
    """Read `{"name", "args"}` of the tool that the turn will call. Pure."""
    tool = _object(value)
    arguments = tool.get("args")
    try:
        text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    except (TypeError, ValueError, RecursionError) as error:
        raise BadHintError("args must be JSON") from error
    name = tool.get("name")
    is_usable = isinstance(name, str) and len(text) <= _MAX_ARGUMENT_CHARS
    call = make_call(name, text) if isinstance(name, str) and is_usable else None
    if call is None:
        raise BadHintError("the tool's name is unusable, or its arguments are too long")
    return turn_end_of((call,))


def read_curve(value: object) -> float | Clipped:
    """Read the median of `[{"t_ms", "prob_still_running"}, ...]`, in seconds. Pure."""
    for point in _objects(value, most=1024):
        share = point.get("prob_still_running")
        if isinstance(share, int | float) and not isinstance(share, bool) and share <= 0.5:
            return read_milliseconds(point.get("t_ms"))
    raise BadHintError("has no point with prob_still_running <= 0.5")


def read_evict_flag(value: object) -> Fields:
    """Read whether the session's blocks go first. Pure."""
    return {"commands": (CacheCommand("evict"),) if read_flag(value) else ()}


def read_prefetch_flag(value: object) -> Fields:
    """Read whether the session's blocks are loaded ahead of its next turn. Pure."""
    return {"commands": (CacheCommand("prefetch"),) if read_flag(value) else ()}


def _command(action: object, session_id: object, retain: object) -> CacheCommand:
    known = _ACTIONS.get(action.casefold()) if isinstance(action, str) else None
    target = None if session_id is None else read_identity(session_id)
    if known == "evict":
        return CacheCommand("evict", target)
    if known == "prefetch":
        return CacheCommand("prefetch", target)
    if known == "retain":
        retain_s = _DEFAULT_TTL_S if retain is None else _number(read_ttl(retain))
        return CacheCommand("retain", target, retain_s)
    raise BadHintError(f"actions are {', '.join(sorted(_ACTIONS))}")


def _ttl_of(payload: Mapping[str, Any]) -> object:
    for key in ("ttl_s", "ttl", "duration"):
        if payload.get(key) is not None:
            return payload[key]
    milliseconds = payload.get("duration_ms", payload.get("ttl_ms"))
    return None if milliseconds is None else _number(read_milliseconds(milliseconds))


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadHintError("must be an object")
    return value


def _objects(value: object, most: int = _MAX_ITEMS) -> Iterator[Mapping[str, Any]]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise BadHintError("must be a list")
    if len(value) > most:
        raise BadHintError(f"has more than {most} items")
    return map(_object, value)


def _number(read: float | Clipped) -> float:
    """A number that was read, cut to its range or not."""
    return float(read.value) if isinstance(read, Clipped) else read  # type: ignore[arg-type]
