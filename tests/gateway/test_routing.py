"""Routing policies in a running gateway and in a simulated fleet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from tests.gateway.fake_engine import FakeEngine, gateway
from tests.gateway.test_forwarding import post

from holdfast.bench.routers import check_router
from holdfast.errors import ConfigError, PolicyError
from holdfast.gateway.policy_file import read_policies
from holdfast.policies import family
from holdfast.policies.registry import ROUTING_ENTRY_POINT_GROUP
from holdfast.policies.routers.prefix_aware import PrefixAwareSettings
from holdfast.policies.routers.round_robin import RoundRobin
from holdfast.policies.routing import (
    EngineView,
    FirstToken,
    RequestEnded,
    RequestPlaced,
    Route,
    RoutedRequest,
    RouteEvent,
    RoutingPolicy,
)
from holdfast.policies.spec import PolicySpec


class Last(RoutingPolicy):
    """The last engine, and what it is asked and shown."""

    spec = PolicySpec("last", "Takes the last engine.", "these tests")
    answer: Route | None = None

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[RoutedRequest] = []
        self.events: list[RouteEvent] = []

    def observe(self, event: RouteEvent) -> None:
        self.events.append(event)

    def route(self, request: RoutedRequest, engines: Sequence[EngineView]) -> Route:
        self.asked.append(request)
        return self.answer or Route(engines[-1].name, "a word of its own")


class Broken(Last):
    """Raises."""

    def route(self, request: RoutedRequest, engines: Sequence[EngineView]) -> Route:
        self.asked.append(request)
        raise RuntimeError("a policy's mistake")


async def test_requests_go_where_the_policy_says() -> None:
    engines, policy = [FakeEngine(), FakeEngine()], Last()
    async with gateway(*engines, routing=policy) as url:
        found = [await post(url, headers={"X-Session-ID": "s1"}) for _ in range(2)]
    assert [len(engine.requests) for engine in engines] == [0, 2]
    assert found[0][2]["X-Holdfast-Engine"] == "e1; reason=other"
    assert [asked.origin for asked in policy.asked] == [None, "e1"]
    kinds = [RequestPlaced, FirstToken, RequestEnded]
    assert [type(event) for event in policy.events] == 2 * kinds
    assert isinstance(policy.events[0], RequestPlaced) and policy.events[0].engine == "e1"


async def test_round_robin_serves_engines_in_turn() -> None:
    engines = [FakeEngine(), FakeEngine()]
    async with gateway(*engines, routing=RoundRobin()) as url:
        found = [await post(url, headers={"X-Session-ID": "s1"}) for _ in range(4)]
    assert [len(engine.requests) for engine in engines] == [2, 2]
    assert found[0][2]["X-Holdfast-Engine"].endswith("reason=turn")


@pytest.mark.parametrize("policy", [Broken(), Last()])
async def test_a_failing_policy_is_replaced_once(
    policy: Last, caplog: pytest.LogCaptureFixture
) -> None:
    policy.answer = Route("no such engine", "space")
    engines = [FakeEngine(), FakeEngine()]
    with caplog.at_level(logging.ERROR):
        async with gateway(*engines, routing=policy) as url:
            found = [await post(url) for _ in range(3)]
            failed = url.counted("holdfast_gateway_policy_actions_total")
    assert [status for status, _, _ in found] == [200] * 3
    assert (len(policy.asked), failed) == (1, 1)
    (record,) = caplog.records
    assert "policy last failed" in record.message and "kv-routing" in record.message


def test_a_table_chooses_the_router(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text("[prefix]\nleast_shared = 0.5\n")
    routing = read_policies(path).routing
    assert routing is not None and routing.settings == PrefixAwareSettings(least_shared=0.5)
    path.write_text("")
    assert read_policies(path).routing is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[sticky]\n[prefix]\n", "'sticky' and 'prefix' both choose engines"),
        ("[prefix]\nleast_shared = 2\n", "policy 'prefix'"),
        ("[stiky]\n", "unknown policy 'stiky'"),
    ],
)
def test_wrong_routers_are_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_policies(path)


def test_routers_of_other_packages_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("last", f"{__name__}:Last", ROUTING_ENTRY_POINT_GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Last)

    def points(*, group: str, name: str | None = None) -> EntryPoints:
        is_meant = group == ROUTING_ENTRY_POINT_GROUP and name in (None, "last")
        return EntryPoints([point] if is_meant else [])

    monkeypatch.setattr(family, "entry_points", points)
    path = tmp_path / "policies.toml"
    path.write_text("[last]\n")
    assert isinstance(read_policies(path).routing, Last)
    check_router("last")


@pytest.mark.parametrize("name", ["", "gateway", "prefix:least=1", "kv-routing:x=1"])
def test_unknown_routers_are_refused(name: str) -> None:
    with pytest.raises(PolicyError) as caught:
        check_router(name)
    assert caught.value.hint
