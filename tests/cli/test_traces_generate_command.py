"""`holdfast traces generate` and `fit`: their files and errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdfast.cli.main import cli
from holdfast.errors import ConfigError
from holdfast.traces.digest import sessions_digest
from holdfast.traces.io import read_sessions
from holdfast.workload.generator.files import load_set, set_names


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["traces", *map(str, arguments)])


def written(path: Path, *arguments: object) -> bytes:
    result = run("generate", *arguments, "--output", path)
    assert result.exit_code == 0, result.output
    return path.read_bytes()


def test_equal_arguments_write_equal_bytes(tmp_path: Path) -> None:
    usual = ("--like", "review", "--sessions", 3, "--seed", 4)
    first = written(tmp_path / "a.jsonl", *usual)
    assert first == written(tmp_path / "b.jsonl", *usual)
    assert first != written(tmp_path / "c.jsonl", *usual[:-1], 5)


def test_more_sessions_extend_the_same_ones(tmp_path: Path) -> None:
    for num in (2, 3):
        written(tmp_path / f"{num}.jsonl", "--like", "supervisor", "--sessions", num)
    few, more = (list(read_sessions(tmp_path / f"{num}.jsonl")) for num in (2, 3))
    assert sum(session.parent_id is None for session in few) == 2
    assert sessions_digest(more[: len(few)]) == sessions_digest(few)


@pytest.mark.parametrize("format_name", ["holdfast", "mooncake", "agentic-mooncake", "weka"])
def test_every_format_can_be_read_again(tmp_path: Path, format_name: str) -> None:
    path = tmp_path / "out.jsonl"
    written(path, "--like", "peer", "--sessions", 2, "--to", format_name)
    assert list(read_sessions(path))


def test_traces_fit_study_and_generate_traces(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", "--like", "codex", "--sessions", 4)
    study = tmp_path / "study.json"
    result = run("study", tmp_path / "a.jsonl", "--json", study, "--concurrency", 1)
    assert result.exit_code == 0, result.output
    written(tmp_path / "b.jsonl", "--study", study, "--sessions", 4)
    first, second = (list(read_sessions(tmp_path / name)) for name in ("a.jsonl", "b.jsonl"))
    names = [
        {turn.tool_name for session in each for turn in session.turns} for each in (first, second)
    ]
    assert names[1] <= names[0]
    assert "exec_command" in names[1]


def test_fitted_set_generates_what_its_study_does(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", "--like", "review", "--sessions", 4)
    study, fitted = tmp_path / "study.json", tmp_path / "fitted.json"
    run("study", tmp_path / "a.jsonl", "--json", study, "--concurrency", 1)
    result = run("fit", study, "--about", "mine", "--output", fitted)
    assert result.exit_code == 0, result.output
    assert load_set(fitted).about == "mine"
    first = written(tmp_path / "b.jsonl", "--study", study, "--sessions", 2)
    second = written(tmp_path / "c.jsonl", "--like", fitted, "--sessions", 2)
    assert first.replace(b"study-0", b"fitted-0").replace(b"study:0", b"fitted:0") == second


@pytest.mark.parametrize(
    ("content", "output", "expected"),
    [("{}", "set.json", r"study\.json"), ("{}", "set.toml", "ends in .json")],
)
def test_unfittable_study_writes_nothing(
    tmp_path: Path, content: str, output: str, expected: str
) -> None:
    study = tmp_path / "study.json"
    study.write_text(content)
    result = run("fit", study, "--output", tmp_path / output)
    assert isinstance(result.exception, ConfigError)
    assert re.search(expected, str(result.exception))
    assert not (tmp_path / output).exists()


@pytest.mark.parametrize("source", [(), ("--like", "peer", "--study", "{study}")])
def test_exactly_one_source_is_required(tmp_path: Path, source: tuple[str, ...]) -> None:
    study = tmp_path / "study.json"
    study.write_text("{}")
    chosen = [word.format(study=study) for word in source]
    result = run("generate", *chosen, "--sessions", 1, "--output", tmp_path / "a.jsonl")
    assert isinstance(result.exception, ConfigError)
    assert "--like, --study" in str(result.exception)
    assert not (tmp_path / "a.jsonl").exists()


def test_workflow_sessions_name_their_agents(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    written(path, "--workflow", "peer", "--sessions", 2)
    agents = {turn.agent for session in read_sessions(path) for turn in session.turns}
    assert agents == {"planner", "executor", "expresser", "reviewer"}


def test_help_names_the_sets() -> None:
    words = run("generate", "--help").output.split()
    assert all(f"{name}," in words or f"{name};" in words for name in set_names())
