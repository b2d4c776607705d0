"""Holdfast's settings, parsed and checked once.

Sources, later ones win: defaults, a TOML file's `[holdfast]` table, `HOLDFAST_*` variables,
explicit values. The engine core, a child process of the server, gets the settings through the
environment (`to_environ`).
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_type_hints

from holdfast.errors import ConfigError
from holdfast.small_file import read_small_text

__all__ = [
    "ENVIRONMENT_PREFIX",
    "OTHER_VARIABLES",
    "HoldfastConfig",
    "Setting",
    "load_config",
    "read_toml",
    "settings",
    "to_environ",
]

ENVIRONMENT_PREFIX: Final = "HOLDFAST_"

OTHER_VARIABLES: Final[Mapping[str, str]] = {
    "HOLDFAST_DEBUG": "1 shows the traceback of an error",
    "HOLDFAST_END_WITH_PARENT": "process id: the server ends when this parent has ended",
    "HOLDFAST_ROUTES_TOKEN": "the token itself, in place of routes_token_file",
    "HOLDFAST_METRICS_DIR": "set by Holdfast: directory for the engine core's metrics",
}
"""`HOLDFAST_*` variables that are no settings; there are no others besides the settings' own."""

_TABLE = "holdfast"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldfastConfig:
    """The settings of an operator; the defaults suit most servers.

    Attributes:
        policy: Name of the scheduling policy; `holdfast policies` lists them.
        eviction: `policy` evicts the smallest retention priority first; `lru` is vLLM's own order.
        admission: `policy` lets the policy admit turns; `fcfs` is vLLM's own order.
        predictions: `guarded` uses predicted return times while they do better than recency, which
            a sampled LRU cache measures; `always` uses them without that check, `never` not at all.
        max_wait_ratio: Wait bound of a turn, after which no later turn passes it, in units of the
            engine time of all turns ahead of it on its arrival, every prompt computed in full
            (0.1 to 100).
        ttft_p99_target_s: Time to first token that 99 of 100 turns should stay within (s): an aim,
            no promise. A turn is due in time for it, before its wait bound if need be; a target
            below the waits of plain vLLM makes every turn due, and admission is then vLLM's.
            Unset, there is none.
        fairness: `tenants` serves tenants by weight, so that none delays the others with more than
            its part; `sessions` also the sessions of each tenant alike; `off` goes by arrival.
        tenant_weights: Weights of tenants, as `NAME=WEIGHT,...` (> 0); a name is the `cache_salt`,
            up to its first colon, and tenants that are not named have 1.
        headroom_ratio: Share of the KV cache that admission leaves free for decode growth
            (0 to 0.5).
        max_sessions: Sessions remembered (>= 1); the longest idle one is forgotten first.
        decision_log: File to append each decision to, as a JSON line; unset, none is written.
        learned_file: Regular file for what was learned about return times and the order of agents,
            saved every half minute and at the end, and read at the next start; engines of one
            server after the first add `.1`, `.2`, ... to its name. Unset, each start learns from
            nothing.
        host_gib: Size of the host tier, in host memory (GiB, per engine replica); unset, there is
            none. Needs vLLM 0.32 or newer.
        pool_dir: Directory of the disk tier, which outlives the engine; created if needed. Needs
            `host_gib`, as all copies go through the host tier.
        pool_gib: Largest size of that directory (GiB); unset, it has no bound.
        pool_ttl_s: Time after which an unused block is removed from it (s); unset, blocks stay.
        compact_dir: Directory of compacted sessions, which outlives the engine; created if needed.
            A compacted session answers differently. Unset, there is none.
        compact_gib: Largest size of that directory (GiB); unset, it has no bound.
        compact_share: Share of a session's tokens that stays when it is compacted (0.05 to 0.95).
        compact_method: What chooses these tokens: `keydiff`, `knorm`, `streaming-llm` or `random`.
        compact_before_drop: Whether a session is compacted before its blocks are evicted from the
            KV cache, or from the last tier that has them, unless its client forbids it. Otherwise
            only sessions whose client asks for it are.
        prefetch: Whether blocks are loaded before a turn needs them.
        warm_up_share: Largest share of time in which an engine without requests computes prompts of
            agents that are called next (0 to 1); 0 computes none.
        warm_up: Whose prompts: `asked` of requests with the hint `holdfast_warm_up`, `all` of all.
        hints: Whether the hints in requests are read.
        routes_token_file: File with the bearer token of the routes under /holdfast/v1; unset,
            there are no such routes.
        retain_share: Share of the KV cache that clients may ask to retain for a time, all together
            (0 to 0.9); each tenant has an equal part of it.
        turn_spans: Whether OpenTelemetry spans of turns are sent, as the SDK's variables say
            (`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`).
        strict: Whether an error of Holdfast is raised instead of falling back. For tests.
    """

    policy: str = "holdfast"
    eviction: Literal["policy", "lru"] = "policy"
    admission: Literal["policy", "fcfs"] = "policy"
    predictions: Literal["guarded", "always", "never"] = "guarded"
    max_wait_ratio: float = 2.0
    ttft_p99_target_s: float | None = None
    fairness: Literal["tenants", "sessions", "off"] = "tenants"
    tenant_weights: str = ""
    headroom_ratio: float = 0.0
    max_sessions: int = 20_000
    decision_log: str | None = None
    learned_file: str | None = None
    host_gib: float | None = None
    pool_dir: str | None = None
    pool_gib: float | None = None
    pool_ttl_s: float | None = None
    compact_dir: str | None = None
    compact_gib: float | None = None
    compact_share: float = 0.6
    compact_method: str = "keydiff"
    compact_before_drop: bool = False
    prefetch: bool = True
    warm_up_share: float = 0.0
    warm_up: Literal["asked", "all"] = "asked"
    hints: bool = True
    routes_token_file: str | None = None
    retain_share: float = 0.5
    turn_spans: bool = False
    strict: bool = False

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each tenant that has one."""
        found = (part.rpartition("=") for part in self.tenant_weights.split(",") if part.strip())
        return {name.strip(): float(weight) for name, _, weight in found}

    def __post_init__(self) -> None:
        for key in _TYPES:
            _check(key, getattr(self, key), "the code")
        for key, needed in _NEEDS.items():
            if getattr(self, key) not in (None, False) and getattr(self, needed) is None:
                raise ConfigError(f"{key} needs {needed}, which is not set")


_TYPES: Final = get_type_hints(HoldfastConfig)
_FILES: Final = ("decision_log", "learned_file", "pool_dir", "compact_dir", "routes_token_file")
_AMOUNTS: Final = (  # above zero, or None
    *("ttft_p99_target_s", "host_gib", "pool_gib", "pool_ttl_s", "compact_gib"),
)
_NEEDS: Final = {
    "pool_dir": "host_gib",
    "pool_gib": "pool_dir",
    "pool_ttl_s": "pool_dir",
    "compact_gib": "compact_dir",
    "compact_before_drop": "compact_dir",
}
_RANGES: Final[Mapping[str, tuple[float, float | None]]] = {
    "max_wait_ratio": (0.1, 100.0),
    "headroom_ratio": (0.0, 0.5),
    "compact_share": (0.05, 0.95),
    "warm_up_share": (0.0, 1.0),
    "max_sessions": (1, None),
    "retain_share": (0.0, 0.9),
}


class Setting(NamedTuple):
    """One setting, as help texts show it.

    Attributes:
        name: Key in the `[holdfast]` table.
        variable: Name in the environment.
        default: Its value unless it is set; None is no value.
        expected: The valid values, in words.
        description: Its effect.
    """

    name: str
    variable: str
    default: object
    expected: str
    description: str


def settings() -> list[Setting]:
    """Every setting, in the order of `HoldfastConfig`. Pure."""
    attributes = inspect.cleandoc(HoldfastConfig.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", attributes, flags=re.MULTILINE)
    descriptions = {name: " ".join(text.split()) for name, text in entries}
    return [
        Setting(one.name, _variable(one.name), one.default, _expected(one.name), description)
        for one in dataclasses.fields(HoldfastConfig)
        for description in (descriptions.get(one.name, ""),)
    ]


def load_config(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    explicit: Mapping[str, object] | None = None,
) -> HoldfastConfig:
    """Merge all sources into one checked configuration; reads `path`.

    Raises:
        ConfigError: The file cannot be read, a key is unknown, or a value has the wrong type or is
            out of range. The message names the source of the value.
    """
    values: dict[str, object] = {}
    if path is not None:
        values |= _from_file(path)
    values |= _from_environment(environ)
    for key, value in (explicit or {}).items():
        _check_known(key, _TYPES, "an argument")
        _check(key, value, "an argument")
        values[key] = value
    return HoldfastConfig(**values)  # type: ignore[arg-type] # each was checked above


def to_environ(config: HoldfastConfig) -> dict[str, str]:
    """The variables from which `load_config` restores `config` in a child process."""
    variables: dict[str, str] = {}
    for key, value in dataclasses.asdict(config).items():
        if value is not None:
            variables[_variable(key)] = str(int(value)) if isinstance(value, bool) else str(value)
    return variables


def _variable(key: str) -> str:
    return ENVIRONMENT_PREFIX + key.upper()


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ConfigError: The file cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(read_small_text(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error


def _from_file(path: Path) -> dict[str, object]:
    content = read_toml(path)
    for name in content:
        _check_known(name, (_TABLE,), str(path), kind="table or key")
    table = content.get(_TABLE, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {_TABLE!r} must be a table, got {table!r}")
    for key, value in table.items():
        _check_known(key, _TYPES, str(path))
        _check(key, value, str(path))
    are_floats = {key for key in table if _TYPES[key] is float or key in _AMOUNTS}
    return {key: float(v) if key in are_floats else v for key, v in table.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    keys = {_variable(key): key for key in _TYPES}
    values: dict[str, object] = {}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in OTHER_VARIABLES:
            continue
        _check_known(variable, (*keys, *OTHER_VARIABLES), "the environment", kind="variable")
        key = keys[variable]
        value = _from_text(key, text)
        _check(key, value, f"the variable {variable}")
        values[key] = value
    return values


def _from_text(key: str, text: str) -> object:
    """Convert a variable's text to the key's type; text of another type stays text."""
    hint = _TYPES[key]
    if not text and key in (*_FILES, *_AMOUNTS):
        return None  # `HOLDFAST_DECISION_LOG=` disables the setting of a file
    if hint is bool:
        lowered = text.strip().lower()
        return True if lowered in _TRUE else False if lowered in _FALSE else text
    if hint in (int, float) or key in _AMOUNTS:
        try:
            return int(text) if hint is int else float(text)
        except ValueError:
            return text
    return text


def _check_known(key: str, known: Iterable[str], source: str, *, kind: str = "key") -> None:
    names = sorted(known)
    if key not in names:
        raise ConfigError(f"{source}: unknown {kind} {key!r}", hint=f"known: {', '.join(names)}")


def _check(key: str, value: object, source: str) -> None:
    if not _is_valid(key, value):
        raise ConfigError(f"{source}: {key} is {value!r}, expected {_expected(key)}")


def _is_valid(key: str, value: object) -> bool:
    hint = _TYPES[key]
    if key == "tenant_weights":
        return isinstance(value, str) and all(map(_is_weight, value.split(",") if value else ()))
    if value is None:
        return key in _FILES or key in _AMOUNTS
    if hint is bool:
        return isinstance(value, bool)
    if hint is int or hint is float or key in _AMOUNTS:
        numbers = (int,) if hint is int else (int, float)
        return (
            isinstance(value, numbers)
            and not isinstance(value, bool)
            and _is_in_range(key, float(value))
        )
    if hint is str or key in _FILES:
        return isinstance(value, str) and value != ""
    return value in get_args(hint)


def _is_weight(part: str) -> bool:
    name, _, weight = part.rpartition("=")
    try:
        return bool(name.strip()) and 0.0 < float(weight) < math.inf
    except ValueError:
        return False


def _is_in_range(key: str, value: float) -> bool:
    if key in _AMOUNTS:
        return 0 < value < math.inf
    low, high = _RANGES[key]
    return low <= value and (high is None or value <= high)


def _expected(key: str) -> str:
    hint = _TYPES[key]
    if hint is bool:
        return "true or false"
    if hint is int or hint is float:
        low, high = _RANGES[key]
        kind = "a whole number" if hint is int else "a number"
        return f"{kind} from {low}" + (f" to {high}" if high is not None else "")
    if key in _AMOUNTS:
        return "a number above 0"
    if key in _FILES:
        return "the name of a directory" if key.endswith("_dir") else "the name of a file"
    if key == "tenant_weights":
        return "NAME=WEIGHT,... with weights above 0, or nothing"
    if hint is str:
        return "a name"
    return " or ".join(repr(choice) for choice in get_args(hint))
