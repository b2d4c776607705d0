"""Reads all sessions of a running engine from its control routes."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from holdfast.core.miss_record import MissRecord
from holdfast.core.seen_state import SeenSession, SeenState
from holdfast.errors import EndpointError

__all__ = ["misses_of", "read_states"]

_TIMEOUT_S: Final = 10.0
_MAX_BYTES: Final = 64 << 20
_MAX_PAGES: Final = 500
_ROUTE: Final = "/holdfast/v1/sessions?limit=200&after={after}"


class _Answer(msgspec.Struct, frozen=True):
    engines: list[SeenState] = []


def read_states(url: str, token: str) -> list[SeenState]:
    """The state of each data-parallel engine, with all of its sessions.

    Args:
        url: Address of the server, without a path.
        token: Bearer token of its control routes.

    Raises:
        EndpointError: The routes cannot be read.
    """
    states: dict[int, SeenState] = {}
    sessions: dict[tuple[int, int], SeenSession] = {}
    after = -1
    for _ in range(_MAX_PAGES):
        page = _page(url, token, after).engines
        for state in page:
            states[state.engine.engine] = state
            sessions |= {(state.engine.engine, one.number): one for one in state.sessions}
        rest = [state.next_after for state in page if state.next_after is not None]
        if not rest:
            break
        after = min(rest)
    return [
        msgspec.structs.replace(
            state, sessions=[one for (number, _), one in sessions.items() if number == engine]
        )
        for engine, state in sorted(states.items())
    ]


def misses_of(states: Iterable[SeenState]) -> Iterator[MissRecord]:
    """The last turns of all sessions, by session and turn. Pure."""
    for state in states:
        for session in state.sessions:
            for turn in sorted(session.last_misses, key=lambda one: one.turn):
                yield MissRecord(
                    0.0,
                    *(session.number, turn.turn, turn.prompt_tokens, turn.cached_tokens),
                    missed=turn.missed,
                    engine=state.engine.engine,
                    session_id=session.session_id,
                    cache_tokens=state.engine.cache_tokens,
                    lost_s=turn.lost_s_by,
                    evicted=turn.evicted,
                    waited_s=turn.waited_s,
                    delayed_by=turn.delayed_by,
                    change=turn.change,
                )


def _page(url: str, token: str, after: int) -> _Answer:
    address = url.rstrip("/") + _ROUTE.format(after=after)
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            return msgspec.json.decode(answer.read(_MAX_BYTES), type=_Answer)
    except urllib.error.HTTPError as error:
        with error:
            raise EndpointError(f"{address}: {_refused(error.code)}", hint=_HINT) from error
    except (OSError, ValueError) as error:
        raise EndpointError(
            f"{address}: {getattr(error, 'reason', error)}",
            hint="give the address of a running engine, such as http://127.0.0.1:8000",
        ) from error


_HINT: Final = "start the engine with --holdfast-token-file FILE, and give --token-file FILE here"


def _refused(status: int) -> str:
    known = {401: "the engine refuses the token", 404: "the engine has no routes"}
    return known.get(status, f"the routes answered {status}")
