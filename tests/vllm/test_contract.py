"""Holdfast's expectations of the installed vLLM: names, signatures, attributes."""

from __future__ import annotations

import importlib.util
import logging
import pkgutil
import re
from pathlib import Path

import pytest

from holdfast.vllm.contract import (
    _OBJECTS,
    COMPACTION,
    CONTROL,
    SCHEDULER,
    TIERED_COMPACTION,
    TIERS,
    breaches,
    modules_of,
)
from holdfast.vllm.versions import OLDEST_WITH_TIERS, engine_version, is_older

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("loaded_engine")]


def test_installed_vllm_meets_the_scheduler_contract(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert breaches(modules_of(SCHEDULER)) == []
    logging.getLogger("holdfast").warning("is heard")  # vLLM 0.28's server mutes all but errors
    assert caplog.messages[-1:] == ["is heard"]


def test_installed_vllm_meets_the_tier_contract() -> None:
    found = breaches(modules_of(TIERS))
    assert bool(found) == is_older(engine_version(), OLDEST_WITH_TIERS), found


def test_installed_vllm_meets_the_contract_of_the_routes() -> None:
    assert breaches(modules_of(CONTROL)) == []


def test_installed_vllm_meets_the_contract_of_compaction() -> None:
    assert breaches(modules_of(COMPACTION)) == []


def test_installed_vllm_meets_the_contract_of_tiered_compaction() -> None:
    found = breaches(modules_of(TIERED_COMPACTION))
    assert bool(found) == is_older(engine_version(), OLDEST_WITH_TIERS), found


def test_installed_vllm_meets_the_simulator_contract() -> None:
    package = importlib.import_module(SCHEDULER)
    names = {one.name for one in pkgutil.walk_packages(package.__path__, f"{SCHEDULER}.")}
    names -= {*modules_of(SCHEDULER), *modules_of(TIERS), *modules_of(TIERED_COMPACTION)}
    assert {"holdfast.vllm.simulator.workerless", "holdfast.vllm.simulator.host_tier"} <= names
    if is_older(engine_version(), OLDEST_WITH_TIERS):
        names = {name for name in names if not name.endswith("_tier")}
    assert breaches(sorted(names)) == []


@pytest.mark.parametrize(("module", "variable"), _OBJECTS)
def test_every_known_object_is_in_a_checked_module(module: str, variable: str) -> None:
    name = f"{SCHEDULER}.{module}"
    parts = (SCHEDULER, TIERS, CONTROL, COMPACTION)
    assert name in {one for part in parts for one in modules_of(part)}
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    assert re.search(rf"{re.escape(variable)}\b", Path(spec.origin).read_text())


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The breaches of a module with the parameter's source."""
    name = f"sample_{abs(hash(request.param))}"
    (tmp_path / f"{name}.py").write_text(request.param)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "\n".join(breaches([name]))


MISSING_NAME = "from vllm.v1.request import Request, Requester\n"

OVERRIDES = """
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import RequestQueue

class Queue(RequestQueue):
    def add_request(self): ...
    def remove_requests(self, requests, reason): ...

class Engine(AsyncScheduler):
    def finish_requests(self, request_ids, *rest, **named): ...
    def add_request(self, request, why=None): ...
"""

USES = """
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.request import Request, RequestStatus

class Engine(AsyncScheduler):
    def add_request(self, request):
        super().add_request(request, 3)
        self.finish_requests_of("me")
        return self.waiting, self.own

    def set(self):
        self.own = RequestStatus.FINISHED_ABORTED, RequestStatus.FINISHED_BORED

def request():
    return Request(request_id="1", prompt="text")
"""


@pytest.mark.parametrize("found", [MISSING_NAME], indirect=True)
def test_missing_name_is_reported(found: str) -> None:
    assert found.startswith("vllm.v1.request.Requester, which sample_")
    assert "\n" not in found


@pytest.mark.parametrize("found", [OVERRIDES], indirect=True)
def test_override_with_other_arguments_is_reported(found: str) -> None:
    assert "RequestQueue.add_request takes request as argument 1, Queue.add_request does" in found
    assert "RequestQueue.remove_requests does without reason, Queue.remove_requests does" in found
    assert "Queue lacks pop_request, which vLLM's class requires" in found
    assert "Engine" not in found


@pytest.mark.parametrize("found", [USES], indirect=True)
def test_calls_and_attributes_checked_on_vllms_classes(found: str) -> None:
    assert "super().add_request(): too many positional arguments" in found
    assert "Engine.finish_requests_of is not there" in found
    assert "RequestStatus.FINISHED_BORED is not there" in found
    assert "Request(): " in found
    assert len(found.splitlines()) == 4
