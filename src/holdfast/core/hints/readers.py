"""Readers of single values: each gives one in range or raises `BadHintError`."""

from __future__ import annotations

import json
import math
from typing import Final, NamedTuple

from holdfast.core.bounded_name import bounded_name
from holdfast.core.prompt_change import CHANGES
from holdfast.tool_calls.syntax import make_call
from holdfast.tool_calls.turn_end import TurnEnd, turn_end_of

__all__ = [
    "MAX_HINT_S",
    "BadHintError",
    "Clipped",
    "read_change",
    "read_flag",
    "read_identity",
    "read_importance",
    "read_milliseconds",
    "read_priority",
    "read_retention",
    "read_reversed_priority",
    "read_seconds",
    "read_tokens",
    "read_ttl",
    "read_turn_end",
]

MAX_HINT_S: Final = 7 * 86400.0
"""Longest time that a hint may name (s)."""

_MAX_ID_BITS: Final = 4096
_MAX_NUMBER_CHARS: Final = 32
_MAX_COMMAND_CHARS: Final = 1024
_MAX_PRIORITY: Final = 1 << 31
_MAX_TOKENS: Final = 1 << 31
_UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class BadHintError(ValueError):
    """A hint's value cannot be used; the message gives the reason."""


class Clipped(NamedTuple):
    """A value that was cut to its range.

    Attributes:
        value: What is left.
        reason: How it was cut.
    """

    value: object
    reason: str


def read_identity(value: object) -> str:
    """Read an id: a text, or a whole number; long ones become a digest. Pure."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if value.bit_length() <= _MAX_ID_BITS else value
    if not isinstance(value, str):
        raise BadHintError("must be a string")
    value = value.strip()
    if not value:
        raise BadHintError("must not be empty")
    if not value.isprintable():
        raise BadHintError("has unprintable characters")
    return bounded_name(value)


def read_flag(value: object) -> bool:
    """Read true or false, also as a number or a word. Pure."""
    if isinstance(value, str):
        value = {"true": 1, "1": 1, "yes": 1, "false": 0, "0": 0, "no": 0}.get(value.casefold())
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise BadHintError("must be true or false")


def read_seconds(value: object) -> float | Clipped:
    """Read a duration in seconds (>= 0). Pure."""
    if isinstance(value, str) and len(value) <= _MAX_NUMBER_CHARS:
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadHintError("must be a number of seconds")
    # Comparing before converting: an int may be too large for a float.
    if not value >= 0 or value == math.inf:
        raise BadHintError("must be a finite number >= 0")
    if value > MAX_HINT_S:
        return Clipped(MAX_HINT_S, f"cut to {MAX_HINT_S:.0f} s")
    return float(value)


def read_milliseconds(value: object) -> float | Clipped:
    """Read a duration in milliseconds (>= 0) as seconds. Pure."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = max(min(value, 10**15), -1)
    return read_seconds(_number(value) / 1e3)


def read_ttl(value: object) -> float | Clipped:
    """Read seconds, or a text such as "5m", "1h" or "1d". Pure."""
    if isinstance(value, str) and value[-1:] in _UNITS_S:
        return read_seconds(_number(value[:-1]) * _UNITS_S[value[-1]])
    return read_seconds(value)


def read_retention(value: object) -> float | Clipped | None:
    """Read a text such as "24h"; "in_memory" asks for nothing more. Pure."""
    if isinstance(value, str) and value.replace("-", "_") == "in_memory":
        return None
    return read_ttl(value)


def read_priority(value: object) -> int | Clipped:
    """Read a priority of which the lower is earlier, as vLLM's. Pure."""
    number = _number(value) if not isinstance(value, int) else value
    if isinstance(value, bool) or not math.isfinite(number):
        raise BadHintError("must be a whole number")
    if abs(number) > _MAX_PRIORITY:
        return Clipped(_MAX_PRIORITY if number > 0 else -_MAX_PRIORITY, "cut to 32 bits")
    return round(number)


def read_tokens(value: object) -> int:
    """Read a number of leading tokens of the prompt; more than it has means all. Pure."""
    number = _number(value)
    if not 0 <= number <= _MAX_TOKENS or number != int(number):
        raise BadHintError("must be a whole number of tokens")
    return int(number)


def read_ratio(value: object) -> float | Clipped:
    """Read a share; more than 1 is cut to 1. Pure."""
    number = _number(value)
    if not 0 <= number < math.inf:
        raise BadHintError("must be a number from 0 to 1")
    return Clipped(1.0, "cut to 1") if number > 1 else number


def read_change(value: object) -> str:
    """Read a kind of change of a prompt. Pure."""
    if not isinstance(value, str) or value not in CHANGES:
        raise BadHintError("must be a known kind of change")
    return value


def read_reversed_priority(value: object) -> int | Clipped:
    """Read a priority of which the higher is earlier, as Dynamo's. Pure."""
    read = read_priority(value)
    if isinstance(read, Clipped):
        return Clipped(
            -_MAX_PRIORITY if read.value == _MAX_PRIORITY else _MAX_PRIORITY, read.reason
        )
    return -read


def read_importance(value: object) -> int | Clipped:
    """Read an importance from 0 to 1, in hundredths, as a priority. Pure."""
    number = _number(value)
    if not math.isfinite(number):
        raise BadHintError("must be a finite number")
    return read_reversed_priority(number * 100.0)


def read_turn_end(value: object) -> TurnEnd:
    """Read `human`, `tool`, `tool:<name>` or `tool:<name> <command>`. Pure."""
    if not isinstance(value, str):
        raise BadHintError("must be a string")
    if value == "human":
        return TurnEnd("human")
    if value == "tool":
        return TurnEnd("tool")
    kind, _, tool = value.partition(":")
    if kind != "tool":
        raise BadHintError('must be "human", "tool", "tool:<name>" or "tool:<name> <command>"')
    name, _, command = tool.strip().partition(" ")
    call = make_call(name, _shell_arguments(command) if command else "")
    if call is None:
        raise BadHintError("the tool's name is empty, too long or has unusable characters")
    return turn_end_of((call,))


def _shell_arguments(command: str) -> str:
    """Return arguments of a call of `command`, in the background after a final `&`."""
    command = command[:_MAX_COMMAND_CHARS].strip()
    foreground = command.removesuffix("&").rstrip()
    arguments: dict[str, object] = {"command": foreground}
    if foreground != command:
        arguments["run_in_background"] = True
    return json.dumps(arguments)


def _number(value: object) -> float:
    if isinstance(value, str) and len(value) <= _MAX_NUMBER_CHARS:
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadHintError("must be a number")
    return float(value)
