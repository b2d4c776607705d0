"""Bounded memory for long strings of clients."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = pytest.mark.engine

MARK = "zqzq"  # in no other string
LONG = MARK * 25_000
MOST_KEPT_BYTES = 1024  # of one request


def kept_bytes(*roots: object) -> int:
    """Size of all strings with the mark that are reachable from an object."""
    seen: dict[int, object] = {}
    pending: list[object] = list(roots)
    found = 0
    while pending:
        one = pending.pop()
        if id(one) in seen or isinstance(one, type | ModuleType | FunctionType):
            continue
        seen[id(one)] = one
        is_marked = (isinstance(one, str) and MARK in one) or (
            isinstance(one, bytes) and MARK.encode() in one
        )
        found += sys.getsizeof(one) if is_marked else 0
        pending += gc.get_referents(one)
    return found


def send_long(rig: Rig, number: int, **options: Any) -> None:
    rig.send(f"{number}-{LONG}", f"{number}abc", **options)
    rig.finish()
    rig.now_s += 1.0


FIELDS: dict[str, dict[str, Any]] = {
    "request id": {},
    "session id": {"session_id": f"{LONG}"},
    "tenant": {"tenant": LONG},
    "hints": {
        "xargs": {
            **{f"holdfast_{key}": LONG for key in ("session_id", "parent_session_id", "agent_id")},
            "holdfast_turn_end": f"tool:Bash {LONG}",
            "holdfast_final": LONG,
            "holdfast_expected_gap_s": LONG,
            "agentic_context": LONG,
            "something_else": LONG,
        }
    },
    "tool": {"xargs": {"holdfast_turn_end": f"tool:{LONG}"}},
}


@pytest.mark.parametrize("field", FIELDS)
def test_long_client_strings_are_bounded(field: str, make_rig: RigMaker, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rig = make_rig(100, settings={"decision_log": log})
    num_requests = 20
    for number in range(num_requests):
        options = {
            key: f"{value}{number}" if isinstance(value, str) else value
            for key, value in FIELDS[field].items()
        }
        send_long(rig, number, **options)
    rig.turn("last", "abc")  # vLLM remembers ended requests until the next step
    rig.requests.clear()
    rig.started.clear()
    assert kept_bytes(rig.scheduler) <= num_requests * MOST_KEPT_BYTES
    rig.scheduler.shutdown()
    assert max(map(len, log.read_bytes().splitlines())) < 4096


def test_long_ids_differing_at_the_end_are_two_sessions(rig: Rig) -> None:
    for end in "ab":
        rig.turn(f"1{end}", "abc", session_id=LONG + end)
        rig.turn(f"2{end}", "abcd", session_id=LONG + end)
    assert [session.num_turns for session in rig.sessions] == [2, 2]


def test_long_salts_differing_at_the_end_are_two_tenants(rig: Rig) -> None:
    for end in "ab":
        rig.turn(f"1{end}", "abc", session_id="s", tenant=LONG + end)
    assert len({session.group for session in rig.sessions}) == 2
