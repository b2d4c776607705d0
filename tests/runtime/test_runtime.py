from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from tests.policies.host import FlatCosts

from holdfast.cache.eviction_queue import EvictionQueue
from holdfast.core.identity import Identity
from holdfast.core.session import Session, SessionState
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission
from holdfast.policies.base import PriorityClass
from holdfast.runtime.runtime import AgentRuntime
from holdfast.tool_calls.turn_end import TurnEnd

TOOL = TurnEnd("tool", ())
HUMAN = TurnEnd("human", ())
GROUP_ID = (0).to_bytes(4, "big")


@dataclass(eq=False)
class FakeBlock:
    """As much of vLLM's block as the queue touches."""

    block_id: int
    block_hash: bytes | None = None
    prev_free_block: Any = None
    next_free_block: Any = None


class Engine:
    """A cache of single blocks that runs one turn at a time; steer it with `run` and `evict`."""

    def __init__(self, num_blocks: int = 64) -> None:
        self.now_s = 0.0
        self.runtime = AgentRuntime(max_sessions=100, max_wait_ratio=1.5)
        self.runtime.costs = FlatCosts(0.1)
        self.evicted: list[bytes] = []
        self.queue = EvictionQueue(
            [FakeBlock(i) for i in range(num_blocks)],
            num_blocks,
            self.runtime.tree,
            self.runtime.priority_of,
            lambda node, n: None,
        )
        self.runtime.attach(self.queue)
        self.cached: dict[bytes, FakeBlock] = {}
        self._num_requests = 0

    def arrive(self, prompt: str, group: str | None = None) -> Turn:
        self._num_requests += 1
        self.runtime.tick(self.now_s)
        identity = Identity(session_id=group)
        return self.runtime.turn_arrived(f"r{self._num_requests}", prefix_hashes(prompt), identity)

    def run(
        self,
        prompt: str,
        answer: str = "",
        end: TurnEnd | None = TOOL,
        group: str | None = None,
        expected_gap_s: float | None = None,
    ) -> Turn:
        turn = self.arrive(prompt, group)
        self.runtime.turn_started(turn)
        hashes = prefix_hashes(prompt + answer)
        blocks = []
        for block_hash in hashes:
            if block_hash in self.cached:
                block = self.cached[block_hash]
                self.queue.remove(block)
            else:
                block = self.take()
                block.block_hash = block_hash + GROUP_ID
                self.cached[block_hash] = block
            blocks.append(block)
        self.runtime.turn_ended(turn, hashes, end, expected_gap_s)
        self.queue.append_n(list(reversed(blocks)))
        self.queue.check_integrity()
        self.runtime.tree.check_integrity()
        return turn

    def take(self) -> FakeBlock:
        block: FakeBlock = self.queue.popleft()
        if block.block_hash is not None:
            content = block.block_hash[: -len(GROUP_ID)]
            del self.cached[content]
            self.evicted.append(content)
            block.block_hash = None
        return block

    def evict(self, num_blocks: int) -> list[str]:
        """Take blocks for good; returns the prefixes lost, first first."""
        self.runtime.tick(self.now_s)
        self.runtime.step(num_stale=8)
        before = len(self.evicted)
        for _ in range(num_blocks):
            self.take()
        return [content.decode() for content in self.evicted[before:]]


def prefix_hashes(text: str) -> list[bytes]:
    """One block a character; the hash spells out the whole prefix."""
    return [text[: i + 1].encode() for i in range(len(text))]


@pytest.fixture
def engine() -> Engine:
    return Engine(num_blocks=12)


def test_a_prompt_that_extends_a_path_continues_the_session(engine: Engine) -> None:
    first = engine.run("abc", "xy")
    assert engine.run("abcxyd").session is first.session


def test_a_prompt_without_the_answer_continues_the_session(engine: Engine) -> None:
    first = engine.run("abc", "xy")
    assert engine.run("abcd").session is first.session


def test_an_answer_that_is_not_repeated_is_evicted_first(engine: Engine) -> None:
    engine.run("abc", "xy")
    engine.run("mn")
    engine.run("abcd")
    engine.evict(engine.queue.num_free_blocks - len(engine.cached))
    assert engine.evict(2) == ["abcxy", "abcx"]


def test_two_prompts_that_share_a_prefix_are_two_sessions(engine: Engine) -> None:
    assert engine.run("sysA").session is not engine.run("sysB").session


def test_a_fork_while_the_parent_runs_is_a_session_of_its_own(engine: Engine) -> None:
    parent = engine.arrive("abcd")
    engine.runtime.turn_started(parent)
    assert engine.run("abcdz").session is not parent.session


def test_an_explicit_id_is_never_joined_by_lineage(engine: Engine) -> None:
    first = engine.run("abc", group="tenant1\x00s")
    assert engine.run("abcd", group="tenant2\x00s").session is not first.session


def test_paths_are_evicted_from_the_end(engine: Engine) -> None:
    engine.run("abcdef")
    engine.evict(6)
    assert engine.evict(3) == ["abcdef", "abcde", "abcd"]


def test_a_closed_session_goes_before_a_live_one(engine: Engine) -> None:
    gone = engine.run("abc")
    engine.now_s = 1.0
    engine.run("mno")
    engine.runtime.session_closed(engine.run("xyz").session)
    engine.evict(3)
    assert engine.evict(3) == ["xyz", "xy", "x"]
    assert gone.session.state is SessionState.AT_TOOL


def test_a_shared_prefix_outlives_what_its_users_have_alone(engine: Engine) -> None:
    engine.run("sysA")
    engine.run("sysB")
    engine.evict(7)
    assert engine.evict(2) == ["sysA", "sysB"]


def test_who_has_been_away_longer_goes_first(engine: Engine) -> None:
    engine.run("abc")
    engine.now_s = 5.0
    engine.run("xyz")
    engine.now_s = 6.0
    engine.evict(6)
    assert engine.evict(3) == ["abc", "ab", "a"]


def test_idle_engine_gets_a_turn_whatever_a_policy_admits(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission = engine.runtime.policies.admission
    monkeypatch.setattr(type(admission), "admit", lambda *_: Admission())
    turns = [engine.arrive("abc"), engine.arrive("xyz")]
    assert engine.runtime.admit(turns, 10, 8, num_running=0).admitted == turns[:1]
    assert not engine.runtime.admit(turns, 10, 8, num_running=1).admitted


def test_humans_go_before_tools_once_their_gaps_are_known() -> None:
    engine = Engine(num_blocks=40)
    for i in range(1, 6):
        engine.run("tool"[:i] + "T" * i, end=TOOL)
    for kind, gap_s, end in (("t", 1.0, TOOL), ("h", 100.0, HUMAN)):
        text = kind
        for _ in range(6):
            engine.run(text, end=end)
            engine.now_s += gap_s
            text += kind
    human = engine.run("HUMAN", end=HUMAN).session
    engine.now_s += 0.1
    tool = engine.run("TOOLS", end=TOOL).session
    engine.now_s += 0.1
    engine.runtime.tick(engine.now_s)
    engine.runtime.step()
    assert engine.runtime.priority_of(human.tail) < engine.runtime.priority_of(tool.tail)


def test_a_late_turn_end_counts_only_while_the_session_is_idle(
    engine: Engine,
) -> None:
    turn = engine.run("abc", end=None)
    engine.runtime.turn_end_known(turn.session, turn.session.num_turns, HUMAN)
    assert turn.session.state.value == "human_away"
    engine.run("abcd", end=TOOL)
    engine.runtime.turn_end_known(turn.session, 1, HUMAN)
    assert turn.session.state.value == "at_tool"


def test_a_hint_that_the_session_returns_soon_protects_it(engine: Engine) -> None:
    engine.run("abc", expected_gap_s=0.5)
    engine.now_s = 0.1
    engine.run("xyz")
    engine.evict(6)
    engine.now_s = 0.2
    assert engine.evict(1) == ["xyz"]


def test_reservations_last_from_pause_to_return(engine: Engine) -> None:
    engine.run("abcd")
    assert engine.queue.num_reserved_blocks == 4
    engine.arrive("abcde")
    assert engine.queue.num_reserved_blocks == 0


def test_a_reservation_is_released_for_a_turn_that_needs_it(engine: Engine) -> None:
    engine.run("abcdef")
    engine.now_s = 100.0
    newcomer = engine.arrive("123456789")
    newcomer.missing_blocks = newcomer.demand_blocks = 9
    decision = engine.runtime.admit([newcomer], blocks=6, slots=8, num_running=1)
    assert [t.request_id for t in decision.admitted] == [newcomer.request_id]
    assert engine.queue.num_reserved_blocks == 0


def _kept_after_a_claim(engine: Engine, *, now_s: float, num_running: int = 1) -> set[Session]:
    """Sessions with a reservation after a turn of 8 blocks found 4 free ones."""
    engine.now_s = now_s
    newcomer = engine.arrive("12345678")
    newcomer.missing_blocks = newcomer.demand_blocks = 8
    engine.runtime.admit([newcomer], blocks=4, slots=8, num_running=num_running)
    return {session for session in engine.runtime.sessions if session.has_reservation}


def test_reservations_go_by_time_idle_the_longest_first(engine: Engine) -> None:
    # Recomputing 4 blocks takes 0.4 s; with one running and one waiting the limit is twice that.
    early = engine.run("abcd").session
    engine.now_s = 0.3
    late = engine.run("efgh").session
    assert _kept_after_a_claim(engine, now_s=0.7) == {early, late}
    assert _kept_after_a_claim(engine, now_s=0.9) == {late}


def test_a_predicted_long_pause_releases_no_reservation(engine: Engine) -> None:
    for _ in range(20):
        engine.run("abcd", end=HUMAN)
        engine.now_s += 500.0
    person = engine.run("abcd", end=HUMAN).session
    assert _kept_after_a_claim(engine, now_s=engine.now_s + 0.1) == {person}


def test_a_pause_that_the_client_calls_long_does(engine: Engine) -> None:
    session = engine.run("abcd").session
    session.expected_gap_s = 60.0
    assert _kept_after_a_claim(engine, now_s=0.1) == set()


def test_asking_for_a_priority_changes_nothing(engine: Engine) -> None:
    turn = engine.run("abc")
    first = engine.runtime.priority_of(turn.session.tail)
    assert first == engine.runtime.priority_of(turn.session.tail)
    assert first[0] == PriorityClass.LIVE


def test_longest_idle_sessions_are_forgotten_past_the_limit() -> None:
    engine = Engine(num_blocks=400)
    for i in range(130):
        engine.run(chr(200 + i) * 2)
    assert len(engine.runtime.sessions) == 100


def test_dropped_content_leaves_no_session_and_no_node(engine: Engine) -> None:
    engine.run("abc")
    engine.queue.forget_content()
    engine.runtime.content_dropped()
    assert (len(engine.runtime.sessions), len(engine.runtime.tree)) == (0, 0)
    engine.queue.check_integrity()


def test_a_stream_that_was_left_and_stays_away_is_superseded(engine: Engine) -> None:
    text = "a"
    for _ in range(4):
        engine.run(text, group="s")
        engine.now_s += 1.0
        text += "a"
    left = engine.run("aaaaa", group="s").session
    engine.run("zz", group="s")
    engine.now_s += 1000.0
    engine.run("other")
    assert left.state is SessionState.SUPERSEDED
    assert engine.run("aaaaab", group="s").session is left


def test_what_is_remembered_of_evicted_content_is_bounded() -> None:
    engine = Engine(num_blocks=12)
    engine.runtime = AgentRuntime(max_sessions=10_000, max_wait_ratio=1.5, max_known_blocks=50)
    engine.queue = EvictionQueue(
        [FakeBlock(i) for i in range(12)],
        12,
        engine.runtime.tree,
        engine.runtime.priority_of,
        lambda node, n: None,
    )
    engine.runtime.attach(engine.queue)
    for i in range(200):
        engine.run(chr(500 + i) * 10)
    assert len(engine.runtime.tree) <= 50 + 12


def test_a_turn_is_due_after_the_work_ahead_times_the_ratio() -> None:
    engine = Engine()
    engine.runtime.costs = FlatCosts(2.0)

    def patience_blocks(turn: Turn) -> float:
        return (turn.due_s - turn.arrived_s) / (1.5 * 2.0)

    first = engine.arrive("abcd")
    assert patience_blocks(first) == 4
    second = engine.arrive("efghij")
    assert patience_blocks(second) == 4 + 6
    engine.runtime.turn_started(first)  # taken to be half done
    third = engine.arrive("k")
    assert patience_blocks(third) == 2 + 6 + 1
    engine.runtime.turn_preempted(first)
    engine.runtime.turn_ended(second, [], None)  # aborted before it ran
    engine.runtime.turn_ended(third, [], None)
    assert patience_blocks(engine.arrive("lm")) == 4 + 2
