"""Routing policies: hand-worked choices, and what holds for all of them."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import PolicyError
from holdfast.policies.registry import ROUTING_POLICIES
from holdfast.policies.routing import (
    REASONS,
    EngineLost,
    EngineView,
    FirstToken,
    RequestEnded,
    RequestPlaced,
    Route,
    RoutedRequest,
    RouteEvent,
)

NAMES = ROUTING_POLICIES.names()


def request(client: str = "c", num_bytes: int = 1000, origin: str | None = None) -> RoutedRequest:
    return RoutedRequest(client, "", num_bytes, origin, 0.0)


def engine(
    name: str, missing: int = 1000, in_flight: int = 0, queued: int = 0, in_use: int = 0
) -> EngineView:
    return EngineView(name, in_flight, queued, missing, in_use, 2000)


def chosen(text: str, asked: RoutedRequest, *engines: EngineView) -> Route:
    return ROUTING_POLICIES.parse(text).route(asked, engines)


# Hand-worked.


def test_round_robin_takes_engines_in_turn() -> None:
    policy = ROUTING_POLICIES.parse("round-robin")
    engines = [engine("a"), engine("b"), engine("c")]
    found = []
    for _ in range(4):
        route = policy.route(request(), engines)
        policy.observe(RequestPlaced(request(), route.engine))
        found.append(route)
    assert [route.engine for route in found] == ["b", "c", "a", "b"]
    assert {route.reason for route in found} == {"turn"}


def test_sticky_moves_only_the_clients_of_a_lost_engine() -> None:
    engines = [engine(name) for name in "abc"]
    clients = [f"client-{number}" for number in range(60)]
    before = {each: chosen("sticky", request(each), *engines).engine for each in clients}
    after = {each: chosen("sticky", request(each), *engines[1:]).engine for each in clients}
    assert set(before.values()) == {"a", "b", "c"}
    assert all(after[each] == before[each] for each in clients if before[each] != "a")
    hashes = {name: sha256(f"{name}/client-0".encode()).digest() for name in "abc"}
    assert before["client-0"] == max(hashes, key=hashes.__getitem__)


@pytest.mark.parametrize(
    ("engines", "expected"),
    [
        # 900 of 1,000 bytes are on b, and its nine requests are eight more than a's one.
        ([engine("a", 1000, 1), engine("b", 100, 9)], Route("b", "prefix")),
        ([engine("a", 1000, 0), engine("b", 100, 9)], Route("a", "load")),
        # A tenth of the prompt is enough, less is not.
        ([engine("a", 1000, 0), engine("b", 900, 1)], Route("b", "prefix")),
        ([engine("a", 1000, 0), engine("b", 901, 1)], Route("a", "load")),
        # Of equal parts the engine with fewer requests.
        ([engine("a", 500, 2), engine("b", 500, 1)], Route("b", "prefix")),
    ],
)
def test_prefix_goes_by_the_prompt_while_balanced(
    engines: Sequence[EngineView], expected: Route
) -> None:
    assert chosen("prefix", request(), *engines) == expected


def test_prefix_has_settings() -> None:
    engines = engine("a", 1000, 0), engine("b", 100, 9)
    assert chosen("prefix:balanced_difference=9", request(), *engines) == Route("b", "prefix")
    with pytest.raises(PolicyError, match="no setting 'least=1'"):
        ROUTING_POLICIES.parse("prefix:least=1")


@pytest.mark.parametrize(
    ("asked", "engines", "expected"),
    [
        # At its origin 100 bytes are missing and 899 queued, 999 in all; elsewhere 1,000.
        (request(origin="a"), [engine("a", 100, 0, 899), engine("b")], Route("a", "origin")),
        (request(origin="a"), [engine("a", 100, 0, 901), engine("b")], Route("b", "moved")),
        # On an engine with 1,001 of 2,000 bytes in use the 1,000 count twice.
        (
            request(origin="a"),
            [engine("a", 100, 0, 1899), engine("b", 1000, 0, 0, 1001)],
            Route("a", "origin"),
        ),
        # The full origin has evicted the session: 1,000 count twice on both, the queue decides.
        (
            request(origin="a"),
            [engine("a", 1000, 0, 1, 2001), engine("b", 1000, 0, 0, 1001)],
            Route("b", "moved"),
        ),
        (
            request(origin="a"),
            [engine("a", 1000, 0, 1, 2000), engine("b", 1000, 0, 0, 1001)],
            Route("a", "origin"),
        ),
        # The origin is down.
        (request(origin="z"), [engine("a", 500), engine("b", 400)], Route("b", "moved")),
        # New: 300 in use and 1,000 missing on a; 600 and 600 on b.
        (request(), [engine("a", in_use=300), engine("b", 600, in_use=600)], Route("b", "prefix")),
        (request(), [engine("a", in_use=300), engine("b", in_use=200)], Route("b", "space")),
    ],
)
def test_kv_routing_weighs_queue_missing_and_space(
    asked: RoutedRequest, engines: Sequence[EngineView], expected: Route
) -> None:
    assert chosen("kv-routing", asked, *engines) == expected


# Of all.

views = st.lists(
    st.builds(
        EngineView,
        st.text(min_size=1, max_size=4),
        st.integers(0, 100),
        st.integers(0, 10**7),
        st.integers(0, 10**7),
        st.integers(0, 10**9),
        st.none() | st.integers(0, 10**9),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda view: view.name,
)
requests = st.builds(
    RoutedRequest,
    st.text(max_size=8),
    st.sampled_from(["", "t"]),
    st.integers(0, 10**7),
    st.none() | st.text(max_size=4),
    st.floats(0, 1e9),
)
times = st.floats(0, 1e9)
events: st.SearchStrategy[RouteEvent] = st.one_of(
    st.builds(RequestPlaced, requests, st.text(max_size=4)),
    st.builds(FirstToken, requests, st.text(max_size=4), times),
    st.builds(RequestEnded, requests, st.text(max_size=4), times),
    st.builds(EngineLost, st.text(max_size=4)),
)


@pytest.mark.parametrize("name", NAMES)
@given(st.lists(events, max_size=5), requests, views)
def test_questions_change_nothing_and_name_an_engine(
    name: str, seen: Sequence[RouteEvent], asked: RoutedRequest, engines: Sequence[EngineView]
) -> None:
    policy = ROUTING_POLICIES.parse(name)
    for event in seen:
        policy.observe(event)
    before = pickle.dumps(vars(policy))
    first = policy.route(asked, engines)
    assert policy.route(asked, engines) == first
    assert pickle.dumps(vars(policy)) == before
    assert first.engine in [view.name for view in engines]
    assert first.reason in REASONS


@pytest.mark.parametrize("name", NAMES)
def test_memory_of_many_clients_is_bounded(name: str) -> None:
    policy = ROUTING_POLICIES.parse(name)
    for number in range(5000):
        asked = request(f"client-{number}")
        policy.observe(RequestPlaced(asked, "a"))
        policy.observe(RequestEnded(asked, "a", float(number)))
    assert len(pickle.dumps(vars(policy))) < 4096


@pytest.mark.parametrize("name", NAMES)
def test_specs_are_complete(name: str) -> None:
    spec = ROUTING_POLICIES.kind(name).spec
    assert spec.name == name and spec.summary.endswith(".") and spec.source
