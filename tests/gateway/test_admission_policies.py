"""Admission by any policy of the registry, in a gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.gateway.fake_engine import FakeEngine, gateway
from tests.gateway.test_admission import Gate
from tests.gateway.test_held_requests import HELD, OneByOne, read
from tests.waiting import until_async

from holdfast.bench.routers import check_router
from holdfast.core.events import TurnStarted
from holdfast.core.turn import Turn
from holdfast.errors import ConfigError, PolicyError
from holdfast.gateway.dispatch import Dispatcher
from holdfast.gateway.engines import Engine
from holdfast.gateway.policy_file import read_policies
from holdfast.policies import registry
from holdfast.policies.admission import Admission, Budget
from holdfast.policies.base import AdmissionPolicy, PolicySpec


class Failing(AdmissionPolicy):
    """Admits the first turn, and fails with the second."""

    spec = PolicySpec("failing", "Fails.", "these tests")
    fails_in = "admit"
    num_asked = 0

    def observe(self, event: Any) -> None:
        if self.fails_in == "observe" and isinstance(event, TurnStarted):
            type(self).num_asked += 1
            if self.num_asked > 1:
                raise RuntimeError("a policy's mistake")

    def admit(self, waiting: Sequence[Turn], budget: Budget) -> Admission:
        if self.fails_in == "admit":
            type(self).num_asked += 1
            if self.num_asked > 1:
                raise RuntimeError("a policy's mistake")
        return Admission(waiting[:1])


@pytest.fixture(params=["admit", "observe"])
def failing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._BUILT_IN, "failing", f"{__name__}:Failing")
    monkeypatch.setattr(Failing, "fails_in", request.param)
    monkeypatch.setattr(Failing, "num_asked", 0)


@pytest.mark.usefixtures("failing")
async def test_requests_go_on_without_a_failing_admission(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = OneByOne()
    engine = FakeEngine(answer)
    with caplog.at_level(logging.ERROR):
        async with (
            gateway(engine, admission="failing") as url,
            aiohttp.ClientSession() as client,
        ):
            sent = [asyncio.create_task(read(client, url, name)) for name in "abcd"]
            await until_async(lambda: len(engine.requests) == 4)
            assert url.counted(HELD) == 0
            assert url.counted("holdfast_gateway_policy_actions_total") == 1
            answer.goes_on.set()
            assert await asyncio.gather(*sent) == [200] * 4
    (record,) = caplog.records
    assert "policy failing failed" in record.message


@pytest.mark.usefixtures("failing")
def test_a_simulation_ends_with_a_failing_admission() -> None:
    from tests.gateway.test_admission import path

    only = Engine("0", "")
    only.learn_capacity(4096)
    dispatcher = Dispatcher([only], admission="failing")
    for number in range(2):
        dispatcher.place(str(number), f"s{number}", path(f"s{number}", 8), 0.0)
    with pytest.raises(RuntimeError, match="a policy's mistake"):
        for _ in range(2):
            dispatcher.take(0.0)


@pytest.mark.parametrize("name", registry.ENGINE_POLICIES.names())
def test_every_deployable_policy_admits_all_turns_in_the_end(name: str) -> None:
    try:
        registry.check_deployable(name)
    except PolicyError:
        pytest.skip("not for live requests")
    gate = Gate(40, policy=name)
    open_, seen = set(), []
    for round_ in range(4):
        waiting = {gate.arrive(f"s{n}", 6 + round_) for n in range(9)}
        for _ in range(40):
            taken = gate.take(after_s=1.0)
            seen += taken
            open_ |= set(taken)
            for request in sorted(open_):
                gate.admission.started(request, gate.now_s)
                gate.admission.ended(request, gate.now_s, 10)
            open_.clear()
            if waiting <= set(seen):
                break
        assert waiting <= set(seen)
    assert len(seen) == len(set(seen)) == 36


@pytest.mark.parametrize(
    ("text", "admission"),
    [
        ("[thunderagent]\nperiod_s = 2.5\n", "thunderagent:period_s=2.5"),
        ('["cachewise+working-set"]\n', "cachewise+working-set"),
        ("[vllm-default]\n", None),
        ("", None),
    ],
)
def test_a_table_names_the_admission(tmp_path: Path, text: str, admission: str | None) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(text)
    if "vllm" in text:
        with pytest.raises(ConfigError, match="does not decide admission"):
            read_policies(path)
    else:
        assert read_policies(path).admission == admission


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[marconi]\n", "'marconi' does not decide admission"),
        ("[clairvoyant]\n", "knows the future"),
        ("[working-set]\n[autellix]\n", "'working-set' and 'autellix' both admit turns"),
        ("[thunderagent]\nperiod = 1\n", "no setting 'period'"),
        ("[thunderagent]\nperiod_s = 'soon'\n", "policy 'thunderagent'"),
        ("['working-set+nothing']\n", "unknown policy 'nothing'"),
    ],
)
def test_wrong_admission_tables_are_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_policies(path)


def test_routers_join_with_admission() -> None:
    check_router("round-robin+autellix")
    with pytest.raises(PolicyError, match="knows the future"):
        check_router("round-robin+clairvoyant")
