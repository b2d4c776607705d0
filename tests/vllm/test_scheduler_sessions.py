"""Sessions of requests, on vLLM's own scheduler and cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.core.identity import Identity
from holdfast.core.session import SessionState

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = pytest.mark.engine


# Lineage.


def test_prompt_with_the_answer_continues_the_session(rig: Rig) -> None:
    first = rig.turn("1", "abcd", num_outputs=40)
    rig.turn("2", rig.following(first, "xy"))
    (session,) = rig.sessions
    assert session.num_turns == 2


def test_prompt_without_the_answer_continues_the_session(rig: Rig) -> None:
    rig.turn("1", "abcd", num_outputs=40)
    rig.turn("2", "abcdxy")
    (session,) = rig.sessions
    assert session.num_turns == 2


def test_prompts_with_a_common_beginning_are_two_sessions(rig: Rig) -> None:
    rig.turn("1", "abcd")
    rig.turn("2", "abxy")
    assert [session.num_turns for session in rig.sessions] == [1, 1]


def test_concurrent_request_gets_its_own_session(rig: Rig) -> None:
    rig.send("1", "abcd", num_outputs=20)
    rig.step()
    rig.send("2", "abcd")
    rig.finish()
    assert len(rig.sessions) == 2


def test_prompt_shorter_than_a_block_is_served(rig: Rig) -> None:
    rig.turn("1", "")
    rig.turn("2", "", num_outputs=40)
    assert len(rig.requests["2"].output_token_ids) == 40


def test_session_states_follow_its_turn(make_rig: RigMaker) -> None:
    rig = make_rig(100, max_num_seqs=1)
    rig.send("1", "abcd", num_outputs=4)
    rig.send("2", "wxyz")
    rig.step()
    assert [s.state for s in rig.sessions] == [SessionState.RUNNING, SessionState.WAITING]
    rig.finish()
    assert {s.state for s in rig.sessions} == {SessionState.AT_TOOL}


# Explicit ids and other hints.

_ID_GIVEN: dict[str, dict[str, Any]] = {
    "the engine's own": {"session_id": "s"},
    "vllm_xargs": {"xargs": {"session_id": "s"}},
    "vllm_xargs, our key": {"xargs": {"holdfast_session_id": "s"}},
    "kv_transfer_params": {"xargs": {"kv_transfer_params": {"agent_hint": {"session_id": "s"}}}},
}


def test_identity_record_takes_precedence(rig: Rig) -> None:
    record = {
        "holdfast_session_id": "s",
        "holdfast_parent_session_id": "p",
        "holdfast_agent_id": "a",
        "holdfast_workflow_id": "w",
        "holdfast_client": "Codex CLI",
        "agentic_context": '{"program_id": "x"}',
    }
    rig.turn("1", "abcd", session_id="engine", xargs=record, tenant="t")
    (session,) = rig.sessions
    assert session.identity == Identity("s", "p", "a", "w", client="Codex CLI", tenant="t")


def test_side_call_continues_no_session_of_its_agent(rig: Rig) -> None:
    rig.turn("1", "abcd", session_id="s")
    record = {"holdfast_side_call": 1, "holdfast_parent_session_id": "s"}
    rig.turn("2", "xyzw", session_id="s", xargs=record)
    agent, title = rig.sessions
    assert (title.identity.is_side_call, title.identity.session_id) == (True, None)
    assert title.identity.parent_group == agent.identity.group


def test_turns_are_counted_by_what_they_name(rig: Rig) -> None:
    claude = {"holdfast_client": "Claude Code"}
    rig.turn("1", "abcd", session_id="s", xargs=claude)
    rig.turn("2", "wxyzwxyz", xargs={**claude, "holdfast_side_call": 1})
    rig.turn("3", "mnop")
    assert rig.metrics["holdfast_identity_turns/Claude Code/session"] == 1
    assert rig.metrics["holdfast_identity_turns/Claude Code/side_call"] == 1
    assert rig.metrics["holdfast_identity_turns/unknown/none"] == 1


def test_disagreements_of_id_and_prompt_are_counted(rig: Rig) -> None:
    rig.turn("1", "abcd", session_id="s")
    rig.turn("2", "abxyz", session_id="s")  # continues by its id
    rig.send("3", "abxyzq", num_outputs=9, session_id="s")
    rig.step()
    rig.send("4", "abxyzr", session_id="s")
    rig.finish()
    counts = {k: v for k, v in rig.metrics.items() if "disagreements" in k}
    assert counts == {
        "holdfast_identity_disagreements/rewritten": 1,
        "holdfast_identity_disagreements/concurrent": 1,
    }


@pytest.mark.parametrize("value", [[1], {"a": 1}, "", "a\x00b", None, 7, "y" * 99_999])
def test_records_of_any_kind_fail_no_request(rig: Rig, value: object) -> None:
    keys = ("session_id", "parent_session_id", "workflow_id", "client", "side_call", "body")
    rig.turn("1", "abcd", xargs={f"holdfast_{key}": value for key in keys})
    rig.turn("2", "abcd", xargs={"kv_transfer_params": {"holdfast": value}})
    assert sum(session.num_turns for session in rig.sessions) == 2


@pytest.mark.parametrize("given", _ID_GIVEN.values(), ids=_ID_GIVEN)
def test_explicit_ids_keep_equal_prompts_apart(rig: Rig, given: dict[str, Any]) -> None:
    rig.turn("1", "abcd")
    rig.turn("2", "abcdxy", **given)
    rig.turn("3", "abcdxyz", **given)
    plain, named = rig.sessions
    assert (plain.num_turns, named.num_turns) == (1, 2)
    assert named.group is not None and named.group.endswith("s")


def test_disabled_hints_are_ignored(make_rig: RigMaker) -> None:
    rig = make_rig(100, settings={"hints": 0})
    rig.turn("1", "abcd", xargs={"session_id": "a"})
    rig.turn("2", "abcdxy", xargs={"session_id": "b"})
    (session,) = rig.sessions
    assert session.group is None


def test_malformed_hint_ignored_and_request_served(rig: Rig) -> None:
    rig.turn("1", "abcd", xargs={"session_id": "", "holdfast_expected_gap_s": "soon"})
    (session,) = rig.sessions
    assert session.group is None and session.expected_gap_s is None


def test_final_turn_closes_session_and_evicts_it_first(make_rig: RigMaker) -> None:
    rig = make_rig(16)
    rig.turn("old", "abcd")
    rig.turn("done", "efgh", xargs={"holdfast_final": "true"})
    rig.turn("new", "ijklmnop")
    assert rig.num_cached("abcd") == 4
    assert rig.num_cached("efgh") < 4
    assert SessionState.CLOSED in {session.state for session in rig.sessions}


def test_closed_session_has_no_reservation(rig: Rig) -> None:
    rig.turn("1", "abcd")
    assert rig.scheduler._queue.num_reserved_blocks == 4
    rig.turn("2", "abcde", xargs={"holdfast_final": 1})
    assert rig.scheduler._queue.num_reserved_blocks == 0


def test_turn_end_hint_is_used(rig: Rig) -> None:
    rig.turn("1", "abcd", xargs={"holdfast_turn_end": "human"})
    (session,) = rig.sessions
    assert session.state is SessionState.HUMAN_AWAY


# Forks and compaction.


def test_fork_leaves_its_parent_unchanged(rig: Rig) -> None:
    parent = rig.turn("parent", "abcdef", num_outputs=40)
    child = rig.turn("child", "abcdxy", num_outputs=40)
    rig.turn("child again", rig.following(child, "z"))
    before = rig.num_computed_tokens
    rig.turn("parent again", rig.following(parent, "g"), num_outputs=1)
    assert rig.num_computed_tokens - before <= 2 * 16 + 4
    assert sorted(session.num_turns for session in rig.sessions) == [2, 2]


def test_fork_of_a_running_parent_keeps_both(rig: Rig) -> None:
    rig.send("parent", "abcdef", num_outputs=30)
    rig.step()
    rig.send("child 1", "abcdx", num_outputs=10)
    rig.send("child 2", "abcdefy", num_outputs=10)
    rig.step()
    rig.check()
    rig.finish()
    rig.turn("parent again", rig.following(rig.requests["parent"], "g"))
    assert len(rig.sessions) == 3


def test_answer_not_repeated_is_evicted_first(make_rig: RigMaker) -> None:
    rig = make_rig(17)
    rig.turn("other", "opqr")
    edited = rig.turn("1", "abcd", num_outputs=60)
    rig.turn("2", "abcdx")
    rig.turn("new", "efghijk")
    assert rig.num_cached("opqr") == 4
    assert rig.num_cached("abcdx") == 5
    assert rig.num_cached(edited.block_hashes) == 4


@pytest.mark.parametrize(
    ("summary", "num_sessions"), [("abx", 2), ("uvx", 3)], ids=["same beginning", "all new"]
)
def test_compacted_path_evicted_before_older_idle_one(
    make_rig: RigMaker, summary: str, num_sessions: int
) -> None:
    rig = make_rig(20 - len(set(summary) & set("ab")))
    rig.turn("idle", "opqrst", session_id="idle")
    rig.turn("long", "abcdef", session_id="s")
    rig.turn("short", summary, session_id="s")
    assert len(rig.sessions) == num_sessions
    rig.turn("new", "ghijklmn", session_id="new")
    assert rig.num_cached("opqrst") == 6
    assert rig.num_cached(summary) == 3
    assert rig.num_cached("abcdef") < 6


# Tenants: vLLM's own hashing, in which the salt is part of the first block.


@pytest.fixture
def salted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a request with a salt and optionally a session id."""
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import init_none_hash

    monkeypatch.setenv("PYTHONHASHSEED", "0")
    init_none_hash(sha256)
    return partial(_run_salted, rig)


def _run_salted(rig: Rig, request_id: str, salt: str | None, session_id: str | None = None) -> None:
    from vllm.sampling_params import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher
    from vllm.v1.request import Request

    request = Request(
        request_id=request_id,
        prompt_token_ids=list(range(100)),
        sampling_params=SamplingParams(max_tokens=4, ignore_eos=True),
        pooling_params=None,
        cache_salt=salt,
        session_id=session_id,
        block_hasher=get_request_block_hasher(16, sha256),
    )
    rig.hand_in(request)
    rig.finish()


def test_tenants_share_neither_cache_nor_session(rig: Rig, salted: Callable[..., None]) -> None:
    salted("1", "alice")
    before = rig.num_computed_tokens
    salted("2", "bob")
    assert rig.num_computed_tokens - before == 100 + 3
    assert len(rig.sessions) == 2
    assert rig.metrics["holdfast_reused_blocks"] == 0


def test_tenant_finds_its_own_cache_and_session(rig: Rig, salted: Callable[..., None]) -> None:
    salted("1", "alice")
    salted("2", "bob")
    before = rig.num_computed_tokens
    salted("3", "alice")
    assert rig.num_computed_tokens - before == 100 - 6 * 16 + 3
    assert sorted(session.num_turns for session in rig.sessions) == [1, 2]


def test_session_id_of_two_tenants_gives_two_sessions(
    rig: Rig, salted: Callable[..., None]
) -> None:
    salted("1", "alice", "s")
    salted("2", "bob", "s")
    first, second = rig.sessions
    assert first.group != second.group
    assert not first.has_moved_on


def test_return_times_survive_a_restart_with_a_file(make_rig: RigMaker, tmp_path: Path) -> None:
    settings = {"learned_file": tmp_path / "learned"}
    before = make_rig(100, settings=settings)
    for number in range(5):
        before.turn(str(number), "abc" + "d" * number)
        before.now_s += 3.0
    before.scheduler.shutdown()
    after = make_rig(100, settings=settings)
    learned = after.scheduler._runtime.returns
    assert learned.num_observed == before.scheduler._runtime.returns.num_observed > 0
