"""Reader of Mooncake requests with sessions."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session, ToolSpan


def row(name: str, session: str, num_blocks: int = 2, **fields: Any) -> dict[str, Any]:
    return {
        "request_id": name,
        "session_id": session,
        "input_length": 64 * num_blocks + 10,
        "output_length": 5,
        "hash_ids": list(range(num_blocks + 1)),
    } | fields


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(*rows: dict[str, Any], **options: Any) -> list[Session]:
        return list(read_sessions(write_lines("m.jsonl", *rows), **options))

    return build


def test_request_waits_for_previous_answer_and_its_tools(read: Any) -> None:
    (session,) = read(
        row("a", "s", timestamp=2000, prefix_reset=True),
        row("b", "s", num_blocks=3, wait_for=["a"], delay=500, tool_wait_ms=1500),
    )
    first, second = session.turns
    assert (session.start_s, session.block_size_tokens) == (2.0, 64)
    assert (first.prompt_tokens, first.output_tokens, second.gap_s) == (138, 5, 2.0)
    assert first.block_ids == second.block_ids[:2]


def test_first_request_waiting_for_a_session_is_a_sub_agent(read: Any) -> None:
    main, explorer = read(
        row("a", "main", timestamp=0, branches=["x"]),
        row("x", "explorer", wait_for=["a"]),
        row("y", "explorer", wait_for=["x"], delay=100),
        row("b", "main", wait_for=["a", "y"], delay=250),
    )
    assert (explorer.parent_id, explorer.parent_turn, explorer.join_turn) == ("main", 0, 1)
    assert (explorer.start_s, main.turns[1].gap_s) == (None, 0.25)


def test_tools_belong_to_the_answer_that_called_them(read: Any) -> None:
    event = {
        "tool_class": "Bash",
        "status": "error",
        "started_at_unix_ms": 1500,
        "ended_at_unix_ms": 2750,
    }
    (session,) = read(
        row("a", "s", timestamp=0),
        row("b", "s", timestamp=3000, wait_for=["a"], tool_wait_ms=2000, tool_events=[event]),
    )
    first, second = session.turns
    assert first.tools == (ToolSpan("Bash", None, 0.5, 1.75, True),)
    assert (first.ended_by, first.tool_name, second.trigger) == ("tool", "Bash", "tool_result")


def test_rows_without_request_ids_follow_each_other(read: Any) -> None:
    rows = [row("", "s", timestamp=n) for n in (0, 700)] + [row("", "s", delay=300)]
    for one in rows:
        del one["request_id"]
    reports: list[FileReport] = []
    (session,) = read(*rows, on_file=reports.append)
    assert [turn.gap_s for turn in session.turns] == [0.0, 0.7, 0.3]
    assert reports[0].num_estimated_gaps == 1


@pytest.mark.parametrize("size", [16, 64, 128, 512, 1024])
def test_block_size_fits_all_block_counts(read: Any, size: int) -> None:
    lengths = [size * n + n for n in range(1, 9)]
    rows = [
        row(f"{n}", f"{n}", input_length=length, hash_ids=list(range(-(-length // size))))
        for n, length in enumerate(lengths)
    ]
    assert {session.block_size_tokens for session in read(*rows)} == {size}


def test_version_2_has_block_size_and_typed_dependencies(read: Any) -> None:
    header = {
        "schema": "dynamo.agentic_mooncake",
        "version": 2,
        "block_size": 64,
        "hash_id_scope": "local",
    }

    def node(
        name: str, session: str, at_ms: float, *dependencies: dict[str, Any]
    ) -> dict[str, Any]:
        return row(name, session, model="m", not_before_ms=at_ms, dependencies=list(dependencies))

    rows = []
    for play in ("p", "q"):
        after = {"request_id": f"{play}a", "trigger": "completion", "delay_ms": 40.0}
        rows += [
            node(f"{play}a", "main", 0.0) | {"play_id": play},
            node(f"{play}b", "main", 90.0, after | {"relation": "sequence"}) | {"play_id": play},
            node(f"{play}x", "child", 50.0, after | {"relation": "spawn"}) | {"play_id": play},
        ]
    main, child, other, _ = read(header, *rows)
    assert (main.session_id, main.start_s, main.turns[1].gap_s) == ("p/main", 0.0, 0.04)
    assert (child.parent_id, child.parent_turn, child.turns[0].model) == ("p/main", 0, "m")
    # Hashes are comparable only within a play.
    assert main.turns[0].block_ids == child.turns[0].block_ids
    assert not set(main.turns[0].block_ids) & set(other.turns[0].block_ids)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("a", "s"), row("a", "s")], "line 2, request_id: a second request 'a'"),
        (
            [row("a", "s", hash_ids=[1, 2, 3, 4, 5, 6, 7], input_length=3)],
            "hash_ids: no block size",
        ),
        (
            [{"schema": "x", "version": 3, "block_size": 4, "hash_id_scope": "local"}],
            "line 1, schema: schema 'x' version 3; expected 'dynamo.agentic_mooncake' version 2",
        ),
    ],
)
def test_a_bad_line_is_an_error_that_names_line_and_field(
    read: Any, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(TraceError, match=rf"m\.jsonl: {message}"):
        read(*rows)
