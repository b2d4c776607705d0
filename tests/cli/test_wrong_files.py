"""Commands that read traces, on faulty files among good ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from tests.cli.test_replay_command import answers, turn
from tests.cli.test_simulate_command import _no_engine as no_engine
from tests.traces.claude_code import answered, said, usage

from holdfast.cli.main import cli
from holdfast.core.results import TurnRecord
from holdfast.errors import TraceError

__all__ = ["answers", "no_engine"]


def write(path: Path, name: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    lines = [
        said("u1", None, 0, sessionId=name),
        answered("a1", "u1", 4, usage(640), sessionId=name),
        said("u2", "a1", 9, sessionId=name),
        answered("a2", "u2", 12, usage(900, 640), sessionId=name),
    ]
    file = path / f"{name}.jsonl"
    file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return path


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """Three files, of which two hold one session."""
    path = write(write(tmp_path / "twins", "a"), "c")
    (path / "b.jsonl").write_bytes((path / "a.jsonl").read_bytes())
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A trace file, a file of another kind, and one that is cut off."""
    path = write(tmp_path / "mixed", "a")
    (path / "hooks.jsonl").write_text('{"timestamp": 1, "event": "hook.start"}\n')
    (path / "cut.json").write_text("{")
    return path


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)])


def message(result: Result) -> str:
    assert isinstance(result.exception, TraceError), result.output
    return str(result.exception)


COMMANDS = {
    "validate": ("traces", "validate"),
    "stats": ("traces", "stats"),
    "study": ("traces", "study", "--concurrency", "1"),
    "convert": ("traces", "convert", "--to", "holdfast"),
    "simulate": ("simulate", "--jobs", "1", "--policies", "vllm-default"),
    "replay": ("replay", "--url", "http://x"),
}


@pytest.fixture(params=COMMANDS)
def invoke(request: Any, tmp_path: Path, answers: list[TurnRecord]) -> Any:
    """Each command, which also writes `out.json`."""
    answers.append(turn())

    def build(path: Path, *options: str) -> Result:
        name = request.param
        where = ["--traces", path] if name in ("simulate", "replay") else [path]
        output = ["--output", tmp_path / "out.jsonl"] if name == "convert" else []
        json_path = ["--json", tmp_path / "out.json"]
        return run(*COMMANDS[name], *where, *output, *json_path, *options)

    return build


def test_second_file_of_one_session_is_an_error(invoke: Any, twins: Path, tmp_path: Path) -> None:
    result = invoke(twins)
    assert "'a': a second session of that id; the first is in" in message(result)
    assert not (tmp_path / "out.jsonl").exists()


def test_lenient_leaves_out_second_file_of_session(invoke: Any, twins: Path) -> None:
    result = invoke(twins, "--lenient")
    assert "a second session of that id" in result.stderr
    assert "1 problems" in str(result.exception) or "1 parts were left out" in result.stderr


def test_converted_session_of_two_files_is_readable(twins: Path, tmp_path: Path) -> None:
    for name in ("holdfast", "agentic-mooncake", "weka"):
        output = tmp_path / f"{name}.jsonl"
        result = run("traces", "convert", twins, "--to", name, "--output", output, "--lenient")
        assert result.exit_code == 0, result.output
        read = run("traces", "validate", output)
        assert "2 sessions, 4 turns: valid" in read.output


def test_unreadable_files_are_named_and_others_used(
    invoke: Any, mixed: Path, tmp_path: Path
) -> None:
    result = invoke(mixed)
    assert "cut.json: not valid UTF-8 JSON" in result.stderr
    assert "hooks.jsonl: line 1: unknown layout" in result.stderr
    assert "known formats are" in result.stderr
    assert "2 problems" in message(result) or "this file and 1 more were not read" in message(
        result
    )
    written = (tmp_path / "out.json").read_text()
    assert "hooks.jsonl" in written or '"num_unread_files": 2' in written


def test_lenient_counts_unreadable_files_as_parts(invoke: Any, mixed: Path) -> None:
    result = invoke(mixed, "--lenient")
    assert "hooks.jsonl: line 1: unknown layout" in result.stderr
    assert "2 problems" in str(result.exception) or "2 parts were left out" in result.stderr


def test_run_documents_count_left_out_parts(
    mixed: Path, tmp_path: Path, answers: list[TurnRecord]
) -> None:
    answers.append(turn())
    for name in ("simulate", "replay"):
        output = tmp_path / f"{name}.json"
        result = run(*COMMANDS[name], "--traces", mixed, "--lenient", "--json", output)
        assert result.exit_code == 0, result.output
        manifest = json.loads(output.read_text())["manifest"]
        assert (manifest["num_skipped"], manifest["unread_files"]) == (2, [])


def test_empty_prompt_is_written_readably(tmp_path: Path) -> None:
    turns = [{"prompt_tokens": 0, "output_tokens": 3}, {"prompt_tokens": 20}]
    session = {"record": "session", "session": "a", "block_size_tokens": 16, "turns": turns}
    end = {"record": "end", "num_sessions": 1, "num_turns": 2}
    path = tmp_path / "a.jsonl"
    rows = [{"record": "trace", "schema": "holdfast.trace/1"}, session, end]
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    for name in ("holdfast", "mooncake", "agentic-mooncake", "weka"):
        output = tmp_path / f"o-{name}.jsonl"
        assert run("traces", "convert", path, "--to", name, "--output", output).exit_code == 0
        assert "2 turns: valid" in run("traces", "validate", output).output
