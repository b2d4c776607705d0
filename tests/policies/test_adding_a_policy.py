"""docs/adding-a-policy.md, executed: its two files make a policy that runs in both hosts."""

from __future__ import annotations

import importlib
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.policies.host import Cache, hashes_of

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


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("installed")
def test_example_runs_in_the_simulator(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    from holdfast.cli.main import cli

    load = {"--sessions": 2, "--concurrency": 2, "--gap-cap-s": 60, "--kv-tokens": 60_000}
    arguments = [str(part) for option in load.items() for part in option]
    policies = "vllm-default,two-strikes:late_s=30,two-strikes+working-set"
    result = CliRunner().invoke(
        cli,
        [
            "simulate",
            "--policies",
            policies,
            "--jobs",
            "1",
            *arguments,
            "--json",
            str(tmp_path / "runs.json"),
        ],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    runs = json.loads((tmp_path / "runs.json").read_bytes())["runs"]
    assert [run["policy"] for run in runs] == policies.split(",")
    assert all(run["fallbacks"] in (0, None) for run in runs)


def test_reading_for_an_author_is_short() -> None:
    opening = PAGE.read_text().partition("## The rules")[0]
    named = re.findall(r"\(\.\./(src/holdfast/[a-z_/]+\.py)\)", opening)
    lines = [len((PAGE.parents[1] / path).read_text().splitlines()) for path in named]
    assert len(named) == 2
    assert sum(lines) <= MOST_LINES_TO_READ
