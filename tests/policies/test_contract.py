"""The policy contract: events, what a context keeps for policies, and what policies inherit."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, get_args

import pytest
from tests.policies.host import HUMAN, Cache, hashes_of

from holdfast.core.events import (
    Event,
    IntervalPassed,
    PauseExplained,
    RescoreBegun,
    SessionClosed,
    SessionForgotten,
    TurnArrived,
    TurnEnded,
    TurnStarted,
)
from holdfast.core.session import Session
from holdfast.policies import family, registry
from holdfast.policies.base import (
    AdmissionPolicy,
    EvictionPolicy,
    Observer,
    PolicyContext,
    PolicySpec,
    PrefetchPolicy,
    PriorityClass,
    SessionPriority,
    users_of,
)
from holdfast.runtime.context import RuntimeContext


class Log(Observer):
    """Takes down each event."""

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)


class Witness(EvictionPolicy, AdmissionPolicy, PrefetchPolicy):
    """Takes down each event, with what a shared observer has seen of it already."""

    spec: ClassVar[PolicySpec] = PolicySpec("witness", "Observes.", "a test")

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self.log = context.shared(Log)
        self.seen: dict[Session, int] = context.per_session()
        self.events: list[Event] = []
        self.is_last_of_log: list[bool] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)
        self.is_last_of_log.append(self.log.events[-1] is event)
        match event:
            case TurnArrived(turn=turn):
                self.seen[turn.session] = self.seen.get(turn.session, 0) + 1


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Cache:
    """A cache whose policy is a `Witness`."""
    monkeypatch.setitem(registry._BUILT_IN, "witness", f"{__name__}:Witness")
    monkeypatch.setattr(family, "import_module", lambda _: _Module)
    return Cache("witness", 20)


class _Module:
    Witness = Witness


def witness_of(cache: Cache) -> Witness:
    assert isinstance(cache.eviction, Witness)
    return cache.eviction


# Events.


def test_events_are_frozen_and_timestamped(cache: Cache) -> None:
    turn = cache.arrive("a", hashes_of("a"))
    for event in (
        TurnArrived(1.0, turn),
        TurnStarted(1.0, turn),
        TurnEnded(1.0, turn),
        PauseExplained(1.0, turn.session),
        SessionForgotten(1.0, turn.session),
    ):
        assert isinstance(event, Event) and event.time_s == 1.0
        for field in dataclasses.fields(event):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(event, field.name, None)


def test_every_kind_of_event_is_a_frozen_dataclass() -> None:
    assert len(get_args(Event)) == 11
    for kind in get_args(Event):
        assert kind.__dataclass_params__.frozen
        assert next(iter(dataclasses.fields(kind))).name == "time_s"


def test_turn_is_observed_from_arrival_to_pause(cache: Cache) -> None:
    cache.at(1.0)
    turn = cache.arrive("a", hashes_of("a"))
    cache.at(2.0)
    cache.start(turn)
    cache.at(4.0)
    cache.end(turn)
    assert witness_of(cache).events == [
        TurnArrived(1.0, turn),
        TurnStarted(2.0, turn),
        TurnEnded(4.0, turn),
        PauseExplained(4.0, turn.session),
    ]


def test_pause_is_explained_again_when_more_is_known(cache: Cache) -> None:
    session = cache.session("a", hashes_of("a"), None)
    cache.at(3.0)
    cache.runtime.turn_end_known(session, 1, HUMAN)
    *_, first, second = witness_of(cache).events
    assert (first, second) == (PauseExplained(0.0, session), PauseExplained(3.0, session))


def test_policy_of_three_parts_observes_each_event_once(cache: Cache) -> None:
    cache.session("a", hashes_of("a"))
    assert len(witness_of(cache).events) == 4


def test_forgotten_session_is_observed_last(cache: Cache) -> None:
    cache.runtime.sessions.max_sessions = 1
    forgotten = cache.session("a", hashes_of("a"))
    cache.session("b", hashes_of("b"))
    assert witness_of(cache).events[-1] == SessionForgotten(0.0, forgotten)


def test_interval_passes_before_steps_as_often_as_asked(cache: Cache) -> None:
    witness_of(cache).interval_s = 5.0
    for at_s in (0.0, 4.0, 5.0, 9.0, 20.0):
        cache.at(at_s)
        cache.step()
    assert witness_of(cache).events == [IntervalPassed(s) for s in (0.0, 5.0, 20.0)]


def test_no_interval_passes_unless_asked_for(cache: Cache) -> None:
    for at_s in (0.0, 1e9):
        cache.at(at_s)
        cache.step()
    assert witness_of(cache).events == []


def test_rescore_is_observed_before_sessions_are_asked(cache: Cache) -> None:
    witness = witness_of(cache)
    witness.rescore_interval_steps = 3
    asked_after: list[int] = []

    def ask(session: Session) -> float:
        del session
        asked_after.append(len(witness.events))
        return 0.0

    witness.session_priority = ask  # type: ignore[method-assign]
    cache.session("a", hashes_of("a"))
    asked_after.clear()
    cache.step(3)
    cache.at(5.0)
    cache.step()
    assert witness.events[-1] == RescoreBegun(5.0)
    assert asked_after[-1] == len(witness.events)


def test_closed_session_is_observed(cache: Cache) -> None:
    session = cache.session("a", hashes_of("a"))
    cache.at(2.0)
    cache.runtime.session_closed(session)
    assert witness_of(cache).events[-1] == SessionClosed(2.0, session)


# What a context keeps.


def test_session_leaves_a_policys_memory_when_forgotten(cache: Cache) -> None:
    cache.runtime.sessions.max_sessions = 1
    cache.session("a", hashes_of("a"))
    kept = cache.session("b", hashes_of("b"))
    assert witness_of(cache).seen == {kept: 1}


def test_memories_of_policies_are_separate() -> None:
    context = RuntimeContext("never", None, None)
    first, second = context.per_session(), context.per_session()
    assert first == second == {} and first is not second


def test_memory_holds_a_session_until_all_have_observed_its_end(cache: Cache) -> None:
    """A policy may look up what it knows of a session that is forgotten."""
    known: list[bool] = []

    class Late(Log):
        def observe(self, event: Event) -> None:
            if isinstance(event, SessionForgotten):
                known.append(event.session in witness_of(cache).seen)

    cache.runtime.shared(Late)
    cache.runtime.sessions.max_sessions = 1
    cache.session("a", hashes_of("a"))
    cache.session("b", hashes_of("b"))
    assert known == [True]


def test_shared_observer_is_one_for_all(cache: Cache) -> None:
    runtime = cache.runtime
    assert runtime.shared(Log) is runtime.shared(Log) is witness_of(cache).log


def test_shared_observers_of_two_classes_are_two() -> None:
    class Other(Log):
        pass

    context = RuntimeContext("never", None, None)
    assert context.shared(Log) is not context.shared(Other)
    assert type(context.shared(Log)) is Log


def test_shared_observer_sees_events_before_policies(cache: Cache) -> None:
    cache.session("a", hashes_of("a"))
    assert witness_of(cache).is_last_of_log == [True] * 4
    assert witness_of(cache).log.events == witness_of(cache).events


def test_dropped_content_builds_policies_anew(cache: Cache) -> None:
    before = witness_of(cache)
    cache.session("a", hashes_of("a"))
    cache.queue.forget_content()
    cache.runtime.content_dropped()
    after = witness_of(cache)
    assert after is not before and after.log is not before.log
    assert (after.events, after.log.events, after.seen) == ([], [], {})
    assert cache.runtime._priorities.eviction is after
    assert cache.runtime._turn_ends.admission is after


# What policies inherit.


def test_eviction_without_a_rule_ranks_all_nodes_alike() -> None:
    cache = Cache("vllm-default", 20)
    session = cache.session("a", hashes_of("a"))
    assert cache.eviction.session_priority(session) == 0.0
    assert cache.priority("a") == (PriorityClass.UNOWNED, 0.0)


def test_session_priorities_of_a_nodes_users_add_up() -> None:
    cache = Cache("vllm-default", 20)
    policy = SessionPriority(cache.runtime)
    sessions = [cache.session(name, hashes_of("ss" + name)) for name in "abc"]
    for number, session in enumerate(sessions, 1):
        session.retention_priority = float(number)
    shared = cache.runtime.tree.locate(b"ss")
    own = cache.runtime.tree.locate(b"ssb")
    assert shared is not None and own is not None
    assert policy.priority(shared) == (PriorityClass.LIVE, 6.0)
    assert policy.priority(own) == (PriorityClass.LIVE, 2.0)


def test_node_without_users_ranks_below_every_session() -> None:
    cache = Cache("vllm-default", 20)
    session = cache.session("a", hashes_of("ab"))
    policy: SessionPriority = SessionPriority(cache.runtime)
    session.tail.tails.clear()
    assert policy.priority(session.tail) == (PriorityClass.UNOWNED, 0.0)
    assert list(PriorityClass) == sorted(PriorityClass)
    assert min(PriorityClass) == PriorityClass.UNOWNED


def test_users_of_a_node_are_cut_at_sixty_four() -> None:
    cache = Cache("vllm-default", 200)
    for number in range(70):
        cache.session(f"r{number}", hashes_of("s" + chr(0x100 + number)))
    node: Any = cache.runtime.tree.locate(b"s")
    assert sum(1 for _ in users_of(node)) == 64


def test_prefetch_without_a_rule_names_nothing() -> None:
    assert not list(PrefetchPolicy(RuntimeContext("never", None, None)).candidates())
