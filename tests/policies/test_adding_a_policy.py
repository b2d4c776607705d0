"""docs/adding-a-policy.md, executed: its two files make a policy for all three hosts."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner
from tests.gateway.fake_engine import FakeEngine, gateway
from tests.gateway.test_admission import Gate
from tests.gateway.test_held_requests import OneByOne, read
from tests.policies.host import Cache, hashes_of
from tests.vllm.conftest import Rig
from tests.waiting import until_async

from holdfast.gateway.policy_file import read_policies
from holdfast.policies.registry import build_policies, check_deployable, policy_names

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-policy.md"
MOST_LINES_TO_READ = 380


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's two files on the path, with the metadata that an installer would write."""
    code, project = re.findall(r"```(?:python|toml)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "two_strikes.py").write_text(code)
    metadata = tmp_path / "two_strikes-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: two-strikes\nVersion: 0.1\n")
    lines = [
        f"[{group}]\n" + "\n".join(f"{name} = {target}" for name, target in points.items())
        for group, points in tomllib.loads(project)["project"]["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("two_strikes", None)


@pytest.mark.usefixtures("installed")
def test_example_is_listed_and_deployable() -> None:
    assert "two-strikes" in policy_names()
    check_deployable("two-strikes+working-set")


@pytest.mark.usefixtures("installed")
def test_session_with_two_late_returns_evicted_first() -> None:
    cache = Cache("two-strikes", 40)
    for index in range(1, 4):
        cache.run(f"late{index}", hashes_of("late" + "x" * index))
        cache.now_s += 61.0
    cache.run("late4", hashes_of("latexxxx"))
    cache.run("prompt", hashes_of("prompt"))
    cache.now_s += 1.0
    cache.run("other", hashes_of("unlike the others"))
    late, prompt, _ = cache.runtime.sessions
    for session in (late, prompt):
        cache.runtime._priorities.mark(session)
    cache.runtime.step()
    assert cache.runtime.priority_of(late.tail) < cache.runtime.priority_of(prompt.tail)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("name", "late_s"), [("two-strikes", 60), ("two-strikes:late_s=30", 30)])
def test_example_has_a_setting(name: str, late_s: float) -> None:
    assert Cache(name, 8).eviction.settings.late_s == late_s


@pytest.mark.usefixtures("installed")
def test_example_joins_other_policies() -> None:
    policies = build_policies("two-strikes+working-set", Cache("holdfast", 8).runtime)
    assert policies.eviction.spec.name == "two-strikes"
    assert policies.admission.spec.name == "working-set"


@pytest.mark.usefixtures("installed")
def test_turns_of_sessions_with_two_late_returns_start_last() -> None:
    gate = Gate(20, policy="two-strikes")
    for num_blocks in (1, 2, 3):
        gate.serve("late", num_blocks, 1)
        gate.now_s += 61.0
    running = gate.arrive("running", 16)
    assert gate.take() == [running]
    late, other = gate.arrive("late", 4), gate.arrive("other", 4)
    assert gate.take() == []
    gate.admission.ended(running, gate.now_s)
    assert gate.take() == [other, late]


@pytest.mark.usefixtures("installed")
async def test_example_admits_in_a_gateway(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text("[two-strikes]\nlate_s = 30\n")
    admission = read_policies(path).admission
    assert admission == "two-strikes:late_s=30"
    answer = OneByOne()
    engine = FakeEngine(answer)
    async with gateway(engine, admission=admission) as url, aiohttp.ClientSession() as client:
        first = asyncio.create_task(read(client, url, "a"))
        await until_async(lambda: len(engine.requests) == 1)
        second = asyncio.create_task(read(client, url, "b"))
        await until_async(lambda: url.counted("holdfast_gateway_requests_held") == 1)
        answer.goes_on.set()
        assert await first == await second == 200
        assert url.counted("holdfast_gateway_policy_actions_total") == 0  # it has not failed


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("installed")
def test_example_runs_in_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    from holdfast.vllm.scheduler import HoldfastScheduler

    monkeypatch.setenv("HOLDFAST_POLICY", "two-strikes:late_s=30")
    monkeypatch.setenv("HOLDFAST_STRICT", "1")  # its errors are raised
    rig = Rig(HoldfastScheduler, 40)
    for number in range(1, 4):
        rig.turn(f"late {number}", "l" * number)
        rig.now_s += 31.0
    rig.turn("late 4", "llll")
    rig.turn("prompt", "pq")
    late, prompt = rig.sessions
    policy = rig.scheduler._runtime.policies.eviction
    assert policy is rig.scheduler._runtime.policies.admission
    rig.now_s += 1.0
    assert policy.session_priority(late) < policy.session_priority(prompt)
    rig.scheduler.shutdown()


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("installed")
def test_example_runs_in_the_simulator(tmp_path: Path) -> None:
    policies = "vllm-default,two-strikes:late_s=30,two-strikes+working-set"
    runs = simulated(tmp_path, "--policies", policies)
    assert [run["policy"] for run in runs] == policies.split(",")
    assert all(run["fallbacks"] in (0, None) for run in runs)


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("installed")
def test_example_admits_in_a_simulated_fleet(tmp_path: Path) -> None:
    router = "kv-routing+two-strikes:late_s=30"
    fleet = "--policies", "vllm-default", "--engines", "2", "--router", router
    (run,) = simulated(tmp_path, *fleet)
    assert run["fleet"] == f"2 engines, {router}"


def simulated(tmp_path: Path, *options: str) -> list[dict[str, Any]]:
    """The runs of `holdfast simulate` with two sessions."""
    pytest.importorskip("vllm")
    from holdfast.cli.main import cli

    load = {"--sessions": 2, "--concurrency": 2, "--gap-cap-s": 60, "--kv-tokens": 60_000}
    arguments = [str(part) for option in load.items() for part in option]
    output = "--jobs", "1", "--json", str(tmp_path / "runs.json")
    result = CliRunner().invoke(
        cli, ["simulate", *options, *arguments, *output], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    runs: list[dict[str, Any]] = json.loads((tmp_path / "runs.json").read_bytes())["runs"]
    return runs


def test_reading_for_an_author_is_short() -> None:
    opening = PAGE.read_text().partition("## The rules")[0]
    named = re.findall(r"\(\.\./(src/holdfast/[a-z_/]+\.py)\)", opening)
    lines = [len((PAGE.parents[1] / path).read_text().splitlines()) for path in named]
    assert len(named) == 2
    assert sum(lines) <= MOST_LINES_TO_READ
