"""Tests of placement, with hand-worked bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import EndpointError
from holdfast.gateway.engines import Engine
from holdfast.gateway.event_residency import EventResidency
from holdfast.gateway.kv_events import KvEvent, engine_session_id
from holdfast.gateway.placement import Placement, Placements
from holdfast.gateway.prompt_path import PromptPath
from holdfast.policies.routers.kv_routing import KvRouting


def path(text: str, num_bytes: int = 100) -> PromptPath:
    """A piece a letter."""
    return PromptPath.of((text[: n + 1].encode() for n in range(len(text))), num_bytes)


class Fleet:
    """Engines that compute at once what is placed on them."""

    def __init__(self, num_engines: int = 2, lease_s: float = 100.0) -> None:
        self.engines = [Engine(str(n), f"http://{n}") for n in range(num_engines)]
        self.placements = Placements(self.engines, KvRouting(), lease_s)
        self.now_s = 0.0

    def send(self, text: str, session_id: str | None = None) -> Placement:
        placed = self.placements.place(session_id, path(text), self.now_s)
        placed.engine.residency.add(path(text))
        return placed


def test_new_sessions_go_where_the_least_is_in_use() -> None:
    fleet = Fleet()
    names = [fleet.send(text, text).engine.name for text in ("aaaa", "b", "cc", "d")]
    assert names == ["0", "1", "1", "1"]
    assert fleet.placements.in_use_bytes(fleet.engines[0]) == 400


def test_a_new_session_joins_what_it_shares_in_equal_space() -> None:
    fleet = Fleet()
    fleet.send("heada", "a")
    fleet.send("zzzzz", "b")
    placed = fleet.send("headc", "c")
    assert (placed.engine.name, placed.reason, placed.missing_bytes) == ("0", "prefix", 100)


def test_a_session_returns_by_its_prompt_alone() -> None:
    fleet = Fleet()
    first = fleet.send("ab")
    fleet.send("xyz")
    again = fleet.send("abcd")
    assert (again.engine, again.reason) == (first.engine, "origin")
    assert again.session is first.session
    assert len(fleet.placements) == 2


def test_an_id_counts_although_the_prompt_was_rewritten() -> None:
    fleet = Fleet()
    first = fleet.send("ab", "s")
    again = fleet.send("qr", "s")
    assert (again.engine, again.reason, again.missing_bytes) == (first.engine, "origin", 200)


@pytest.mark.parametrize(("queued", "reason"), [(299, "origin"), (301, "moved")])
def test_a_session_moves_when_waiting_costs_more(queued: int, reason: str) -> None:
    fleet = Fleet()
    origin = fleet.send("abc", "s").engine
    origin.queued_bytes = queued
    # There 100 bytes are missing and some queued; elsewhere all 400 are missing.
    placed = fleet.send("abcd", "s")
    assert placed.reason == reason
    assert (placed.engine is origin) == (reason == "origin")


def test_a_session_of_a_dead_engine_moves_and_stays() -> None:
    fleet = Fleet()
    origin = fleet.send("abc", "s").engine
    origin.is_up = False
    origin.residency.clear()
    assert fleet.send("abcd", "s").reason == "only"
    origin.is_up = True
    placed = fleet.send("abcde", "s")
    assert (placed.engine is not origin, placed.reason) == (True, "origin")


def test_when_all_seem_down_each_is_tried_before_an_error() -> None:
    fleet = Fleet()
    for engine in fleet.engines:
        engine.is_up = False
    first = fleet.send("a").engine
    failed = [first]
    failed.append(fleet.placements.place(None, path("a"), 0.0, failed).engine)
    assert set(failed) == set(fleet.engines)
    with pytest.raises(EndpointError, match="no engine is reachable"):
        fleet.placements.place(None, path("a"), 0.0, failed)


@pytest.mark.parametrize(("queued", "reason"), [(699, "origin"), (701, "moved")])
def test_a_move_to_a_full_engine_costs_twice(queued: int, reason: str) -> None:
    fleet = Fleet()
    for engine in fleet.engines:
        engine.residency.capacity_bytes = 600
    origin = fleet.send("abc", "s").engine
    fleet.send("xyz", "t")
    origin.queued_bytes = queued
    # There 100 bytes are missing; elsewhere 400, and 400 of the other session's are evicted.
    placed = fleet.send("abcd", "s")
    assert (placed.engine is origin, placed.reason) == (reason == "origin", reason)


def test_an_engine_that_reports_less_has_less() -> None:
    fleet = Fleet()
    first = fleet.send("abc", "s")
    events = first.engine.events = EventResidency()
    assert fleet.send("abcd", "s").missing_bytes == 100  # it has reported nothing yet
    events.is_current = True
    name = engine_session_id("s")
    events.apply(
        KvEvent("BlockStored", [(0, 1), (0, 2)], None, 25, name)
    )  # 200 bytes at four a token
    assert fleet.send("abcde", "s").missing_bytes == 300
    events.apply(KvEvent("AllBlocksCleared"))
    assert fleet.send("abcdef", "s").missing_bytes == 600


def test_a_restarted_gateway_asks_the_events_for_origins() -> None:
    fleet = Fleet(3)
    for engine, num_blocks in zip(fleet.engines, (0, 1, 2), strict=True):
        engine.events = EventResidency()
        engine.events.is_current = True
        for key in range(num_blocks):
            stored = KvEvent("BlockStored", [(0, key)], None, 25, engine_session_id("s"))
            engine.events.apply(stored)
    placed = fleet.send("abc", "s")
    assert (placed.engine.name, placed.reason, placed.missing_bytes) == ("2", "origin", 100)
    assert fleet.send("abc", "t").reason == "space"


def test_idle_sessions_stop_counting_after_their_lease() -> None:
    fleet = Fleet()
    fleet.send("aaaa", "a")
    fleet.now_s = 101.0
    assert fleet.send("b", "b").engine.name == "0"
    assert fleet.placements.in_use_bytes(fleet.engines[0]) == 100


def test_a_closed_session_gives_its_space_back() -> None:
    fleet = Fleet()
    fleet.send("aaaa", "a")
    assert fleet.placements.close("a")
    assert not fleet.placements.close("a")
    assert fleet.placements.in_use_bytes(fleet.engines[0]) == 0


@given(
    st.lists(
        st.tuples(
            st.text("abc", max_size=4), st.sampled_from([None, "s", "t"]), st.integers(0, 80)
        ),
        max_size=30,
    )
)
def test_bytes_in_use_are_those_of_the_sessions(
    requests: list[tuple[str, str | None, int]],
) -> None:
    fleet = Fleet(3)
    for text, session_id, wait_s in requests:
        fleet.now_s += wait_s
        fleet.send(text, session_id)
        sessions = fleet.placements._sessions.values()
        for engine in fleet.engines:
            used = sum(s.num_bytes for s in sessions if s.engine is engine)
            assert fleet.placements.in_use_bytes(engine) == used
        assert len(fleet.placements._leaves) <= len(sessions)


def test_what_another_engine_holds_is_told_of_a_move() -> None:
    fleet = Fleet()
    origin = fleet.send("abcd", "s").engine
    assert fleet.send("abcd", "s").elsewhere_ratio == 0.0
    origin.queued_bytes = 10_000
    moved = fleet.send("abcdef", "s")
    assert moved.reason == "moved"
    assert moved.elsewhere_ratio == pytest.approx(4 / 6)
    assert fleet.send("abcdef", "s").elsewhere_ratio == 0.0


def test_what_a_dead_engine_held_is_not_elsewhere() -> None:
    fleet = Fleet()
    fleet.send("abcd", "s").engine.is_up = False
    assert fleet.send("abcd", "s").elsewhere_ratio == 0.0
