"""`holdfast traces`: output, files and errors of its commands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from holdfast.cli.main import cli, main
from holdfast.errors import TraceError
from holdfast.traces.formats.canonical import SCHEMA

_ARRIVALS = [
    {"timestamp": 0, "input_length": 1024, "output_length": 4, "hash_ids": [1, 2]},
    {"timestamp": 500, "input_length": 1536, "output_length": 6, "hash_ids": [1, 2, 3]},
]


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, ["traces", *map(str, arguments)])


def write(path: Path, *lines: Any) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return path


@pytest.fixture
def mooncake(tmp_path: Path) -> Path:
    return write(tmp_path / "m.jsonl", *_ARRIVALS)


def test_stats_sums_all_files(mooncake: Path, tmp_path: Path) -> None:
    result = run("stats", mooncake, "--json", tmp_path / "s.json")
    assert result.exit_code == 0, result.output
    assert "2,560" in result.output
    document = json.loads((tmp_path / "s.json").read_bytes())
    assert document["schema"] == "holdfast.trace-stats/1"
    assert (document["num_sessions"], document["num_arrivals"], document["num_turns"]) == (2, 2, 2)
    assert (document["prompt_tokens"], document["output_tokens"]) == (2560, 10)
    # Of 2,560 tokens the second prompt's first 1,024 had been sent before, by another session.
    assert document["reading_reuse_ratio"] == 0.4
    assert (document["session_reuse_ratio"], document["distinct_tokens"]) == (0.0, 1536)
    assert document["files"][0]["format_name"] == "Mooncake"


def test_stats_separates_gaps_by_turn_end(tmp_path: Path) -> None:
    turns = [
        {"prompt_tokens": 32, "new_blocks": [[0, 2]], "ended_by": "tool", "tools": [{"name": "x"}]},
        {"prompt_tokens": 48, "shared_tokens": 32, "new_blocks": [[2, 1]], "gap_s": 2.0},
        {"prompt_tokens": 48, "shared_tokens": 48, "gap_s": 4.0, "ended_by": "human", "model": "m"},
    ]
    path = write(
        tmp_path / "h.jsonl",
        {"record": "trace", "schema": SCHEMA},
        {"record": "session", "session": "a", "block_size_tokens": 16, "turns": turns},
        {"record": "end", "num_sessions": 1, "num_turns": 3},
    )
    assert run("stats", path, "--json", tmp_path / "s.json").exit_code == 0
    document = json.loads((tmp_path / "s.json").read_bytes())
    gaps = {name: (one["num_gaps"], one["total_s"]) for name, one in document["gaps"].items()}
    assert gaps == {"tool": (1, 2.0), "unknown": (1, 4.0)}
    assert document["session_reuse_ratio"] == 80 / 128
    assert (document["calls_by_tool"], document["turns_by_model"]) == ({"x": 1}, {"m": 1})


def test_convert_writes_readable_files_and_lists_losses(mooncake: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl.zst"
    assert run("convert", mooncake, "--to", "holdfast", "--output", out).exit_code == 0
    back = tmp_path / "back.jsonl"
    assert run("convert", out, "--to", "mooncake", "--output", back).exit_code == 0
    rows = [json.loads(line) for line in back.read_text().splitlines()]
    assert [row["timestamp"] for row in rows] == [0, 500]
    assert [len(row["hash_ids"]) for row in rows] == [2, 3]
    result = run("convert", out, "--to", "weka", "--output", tmp_path / "w.jsonl")
    assert "Session.start_s" in result.output


def test_validate_counts_files_sessions_and_turns(mooncake: Path) -> None:
    result = run("validate", mooncake)
    assert result.exit_code == 0
    assert "1 files (Mooncake), 2 sessions, 2 turns: valid" in result.output


def test_validate_writes_counts(mooncake: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert run("validate", mooncake, "--json", out).exit_code == 0
    found = json.loads(out.read_bytes())
    assert found["is_valid"] and found["problems"] == []
    assert (found["num_sessions"], found["num_turns"]) == (2, 2)
    assert [file["format"] for file in found["files"]] == ["Mooncake"]


def test_validate_lenient_writes_problems(mooncake: Path, tmp_path: Path) -> None:
    mooncake.write_bytes(mooncake.read_bytes() + b'{"timestamp": "x"}\n')
    out = tmp_path / "out.json"
    assert run("validate", mooncake, "--json", out, "--lenient").exit_code != 0
    found = json.loads(out.read_bytes())
    assert not found["is_valid"] and found["num_problems"] == len(found["problems"]) == 1
    assert run("validate", mooncake, "--json", tmp_path / "not.json").exit_code != 0
    assert not (tmp_path / "not.json").exists()


def test_convert_writes_losses(mooncake: Path, tmp_path: Path) -> None:
    out, counts = tmp_path / "out.jsonl", tmp_path / "counts.json"
    arguments = ("convert", mooncake, "--to", "weka", "--output", out, "--json", counts)
    assert run(*arguments).exit_code == 0
    found = json.loads(counts.read_bytes())
    assert found["format"] == "weka" and found["num_turns"] == 2
    assert isinstance(found["losses"], dict)


def test_wrong_line_stops_command_without_output(mooncake: Path, tmp_path: Path) -> None:
    mooncake.write_bytes(mooncake.read_bytes() + b'{"timestamp": "x"}\n')
    out = tmp_path / "out.jsonl"
    for arguments in (
        ("validate", mooncake),
        ("stats", mooncake, "--json", out),
        ("convert", mooncake, "--to", "holdfast", "--output", out),
    ):
        result = run(*arguments)
        assert isinstance(result.exception, TraceError)
        assert "m.jsonl: line 3, timestamp: Expected `float`" in str(result.exception)
    assert list(tmp_path.iterdir()) == [mooncake]


def test_lenient_leaves_out_and_counts_wrong_line(mooncake: Path, tmp_path: Path) -> None:
    mooncake.write_bytes(mooncake.read_bytes() + b'{"timestamp": "x"}\n')
    result = run("stats", mooncake, "--lenient", "--json", tmp_path / "s.json")
    assert result.exit_code == 0
    assert "line 3, timestamp" in result.stderr
    assert json.loads((tmp_path / "s.json").read_bytes())["num_skipped"] == 1
    out = tmp_path / "out.jsonl"
    assert run("convert", mooncake, "--lenient", "--to", "mooncake", "--output", out).exit_code == 0
    assert len(out.read_text().splitlines()) == 2
    result = run("validate", mooncake, "--lenient")
    assert "1 problems" in str(result.exception)


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        ({"session": "a"}, "a second session of that id"),
        ({"session": "b", "parent": "c"}, "parent 'c' is not among the sessions before it"),
        ({"session": "b", "parent": "a", "parent_turn": 1}, "turn 1 of parent 'a', which has 1"),
        (
            {"session": "b", "turns": [{"prompt_tokens": 32, "new_blocks": [[7, 1], [1, 1]]}]},
            "block 1 follows another block than before",
        ),
    ],
)
def test_validate_finds_inconsistent_sessions(
    tmp_path: Path, second: dict[str, Any], problem: str
) -> None:
    first = {
        "record": "session",
        "session": "a",
        "block_size_tokens": 16,
        "turns": [{"prompt_tokens": 32, "new_blocks": [[0, 2]]}],
    }
    path = write(
        tmp_path / "h.jsonl",
        {"record": "trace", "schema": SCHEMA},
        first,
        first | second,
        {"record": "end", "num_sessions": 2, "num_turns": 2},
    )
    result = run("validate", path)
    assert problem in str(result.exception)


def test_error_prints_line_and_hint_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["traces", "validate", str(tmp_path / "nothing")])
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


def claude_code(path: Path, *, is_answered: bool) -> Path:
    """A session whose answer's length is not recorded."""
    entry = {"uuid": "u", "parentUuid": None, "sessionId": path.stem, "type": "user"}
    prompt = entry | {"message": {"role": "user", "content": "x" * 400}}
    message = {"role": "assistant", "content": "y" * 400, "id": "m", "usage": {"input_tokens": 640}}
    answer = entry | {"uuid": "a", "parentUuid": "u", "type": "assistant", "message": message}
    return write(path, prompt, *([answer] if is_answered else []))


def test_estimates_and_unanswered_sessions_are_counted(tmp_path: Path) -> None:
    claude_code(tmp_path / "one.jsonl", is_answered=True)
    claude_code(tmp_path / "two.jsonl", is_answered=False)
    validated = run("validate", tmp_path)
    assert validated.exit_code == 0, validated.output
    assert "1 lengths are estimated" in validated.stdout
    assert "1 sessions without an answer left out" in validated.stdout
    shown = run("stats", tmp_path, "--json", tmp_path / "out")
    assert re.search(r"lengths estimated +1\n", shown.stdout)
    assert re.search(r"sessions without an answer +1\n", shown.stdout)
    files = json.loads((tmp_path / "out").read_text())["files"]
    assert [file["num_unanswered"] for file in files] == [0, 1]
    assert [file["num_estimated_lengths"] for file in files] == [1, 0]


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A trajectory in which every text is `Xyzzy`."""
    steps = [{"source": "user", "message": "Xyzzy"}, {"source": "agent", "message": "Xyzzy"}]
    agent = {"name": "a"}
    return write(
        tmp_path / "t.json",
        {"schema_version": "ATIF-v1.7", "session_id": "s", "agent": agent, "steps": steps},
    )


@pytest.mark.parametrize("keeps", [False, True])
def test_convert_keeps_text_on_request_and_never_prints_it(
    spoken: Path, tmp_path: Path, keeps: bool
) -> None:
    out = tmp_path / "out.jsonl"
    flags = ["--keep-text"] if keeps else []
    result = run("convert", spoken, "--to", "holdfast", "--output", out, *flags)
    assert result.exit_code == 0, result.output
    assert ("Xyzzy" in out.read_text()) is keeps
    assert "Xyzzy" not in result.output
    assert ("1 of 1 turns have text" in result.output) is keeps
    # Holdfast's own files are read without it as well.
    again = tmp_path / "again.jsonl"
    assert run("convert", out, "--to", "holdfast", "--output", again).exit_code == 0
    assert "Xyzzy" not in again.read_text()
    for command in ("stats", "validate", "study"):
        result = run(command, out)
        assert result.exit_code == 0, result.output
        assert "Xyzzy" not in result.output


def test_convert_names_formats_without_text(spoken: Path, mooncake: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    paths = (spoken, mooncake)
    result = run("convert", *paths, "--keep-text", "--to", "holdfast", "--output", out)
    assert "1 of 3 turns have text; the format Mooncake has no text" in result.output
    result = run("convert", mooncake, "--keep-text", "--to", "holdfast", "--output", out)
    assert "0 of 2 turns have text; the format Mooncake has no text" in result.output


def test_convert_counts_text_lost_by_new_format(spoken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    result = run("convert", spoken, "--keep-text", "--to", "weka", "--output", out)
    assert re.search(r"Turn\.text +1", result.output)
    assert "Xyzzy" not in out.read_text()


def test_sessions_without_parent_are_counted(tmp_path: Path) -> None:
    answer = {"info": {"role": "assistant"}, "parts": [{"type": "text", "text": "x"}]}
    info = {"id": "a", "parentID": "gone"}
    path = write(tmp_path / "a.json", {"info": info, "messages": [answer]})
    assert "1 sessions whose parent is missing" in run("validate", path).output
    result = run("stats", path, "--json", tmp_path / "s.json")
    assert re.search(r"sessions without their parent +1", result.output)
    assert json.loads((tmp_path / "s.json").read_bytes())["files"][0]["num_orphans"] == 1
