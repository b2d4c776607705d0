"""Unreadable files do not stop the reading of others in their directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.traces.claude_code import answered, result, said, usage
from tests.traces.test_reader_fuzz import SAMPLES
from tests.traces.test_session_links import _lines, _row

from holdfast.errors import TraceError
from holdfast.traces.io import read_sessions
from holdfast.traces.record import Session


@pytest.fixture
def unread() -> list[TraceError]:
    return []


@pytest.fixture
def read(unread: list[TraceError]) -> Any:
    def build(path: Path) -> list[Session]:
        return list(read_sessions(path, on_unread=unread.append))

    return build


def _names(errors: list[TraceError]) -> list[str]:
    return [Path(error.source).name for error in errors]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("hooks.jsonl", b'{"timestamp": 1, "event": "start"}\n'),
        ("empty.jsonl", b""),
        ("cut.json", b'{"resourceSpans": ['),
        ("list.json", b"[1, 2]"),
        ("noise.jsonl.gz", b"\x00" * 64),
    ],
)
def test_file_of_unknown_format_leaves_others_readable(
    tmp_path: Path, read: Any, unread: list[TraceError], name: str, content: bytes
) -> None:
    suffix, sample = SAMPLES["Mooncake"]
    for good in ("a", "z"):
        (tmp_path / f"{good}.{suffix}").write_bytes(sample)
    (tmp_path / name).write_bytes(content)
    assert len(read(tmp_path)) == 4
    assert _names(unread) == [name]


@pytest.mark.parametrize("bad", [_row("b", agent=5), _row("b") | {"turns": [{"from_turn": 9}]}])
def test_a_file_with_a_wrong_line_is_read_whole_or_not_at_all(
    write_lines: Any, read: Any, unread: list[TraceError], bad: dict[str, Any]
) -> None:
    write_lines("one.jsonl", *_lines(_row("a"), bad, _row("c")))
    path = write_lines("two.jsonl", *_lines(_row("d")))
    assert [session.session_id for session in read(path.parent)] == ["d"]
    assert _names(unread) == ["one.jsonl"]
    assert "line 3" in str(unread[0])
    assert "(read as Holdfast)" in str(unread[0])


def test_single_unreadable_file_is_an_error(
    write_lines: Any, read: Any, unread: list[TraceError]
) -> None:
    with pytest.raises(TraceError, match="unknown layout"):
        read(write_lines("a.jsonl", {"x": 1}))
    assert not unread


def test_only_unreadable_files_are_an_error(
    write_lines: Any, read: Any, unread: list[TraceError]
) -> None:
    write_lines("a.jsonl", {"x": 1})
    path = write_lines("b.jsonl", {"x": 1})
    with pytest.raises(TraceError, match="none of 2 files can be read"):
        read(path.parent)
    assert len(unread) == 2


def test_error_names_the_detected_format(write_lines: Any) -> None:
    path = write_lines("a.jsonl", *_lines(_row("a", agent=5)))
    with pytest.raises(TraceError, match=r"line 2, agent: Expected .* \(read as Holdfast\)$"):
        list(read_sessions(path))
    skipped: list[TraceError] = []
    list(read_sessions(path, on_skipped=skipped.append))
    assert str(skipped[0]).endswith("(read as Holdfast)")


@pytest.fixture
def family(tmp_path: Path, write_lines: Any) -> Path:
    """Write a Claude Code session with two sub-agents beside it."""
    (tmp_path / "s" / "subagents").mkdir(parents=True)
    launch = ("t1", "Task", {"prompt": "told x", "subagent_type": "Explore"})
    write_lines(
        "s.jsonl",
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(640), tool=launch),
        result("u2", "a1", 9, "t1", toolUseResult={"agentId": "x"}),
        answered("a2", "u2", 12, usage(700)),
    )
    for agent in ("x", "y"):
        side: Any = {"isSidechain": True, "agentId": agent}
        write_lines(
            f"s/subagents/agent-{agent}.jsonl",
            said(f"{agent}1", None, 5, f"told {agent}", **side),
            answered(f"{agent}2", f"{agent}1", 7, usage(320), **side),
        )
    return tmp_path


def test_wrong_sub_agent_file_leaves_its_session_readable(
    family: Path, read: Any, unread: list[TraceError]
) -> None:
    (family / "s" / "subagents" / "agent-x.jsonl").write_bytes(b'{"uuid": 5}\n')
    assert [session.session_id for session in read(family)] == ["s", "s/y"]
    assert _names(unread) == ["agent-x.jsonl"]


def test_wrong_session_file_leaves_its_sub_agents_readable(
    family: Path, read: Any, unread: list[TraceError]
) -> None:
    with (family / "s.jsonl").open("ab") as file:
        file.write(b'{"uuid": 5}\n')
    assert [session.session_id for session in read(family)] == ["s/x", "s/y"]
    assert _names(unread) == ["s.jsonl"]
    unread.clear()
    (family / "s.jsonl").write_bytes(b"{")
    assert [session.session_id for session in read(family)] == ["s/x", "s/y"]
    assert _names(unread) == ["s.jsonl"]
