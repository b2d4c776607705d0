"""Writers of other formats: the values they keep and the losses they count."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from holdfast.errors import ConfigError, TraceError
from holdfast.traces.conversion import write_sessions
from holdfast.traces.io import read_sessions
from holdfast.traces.record import Session, ToolSpan, Turn
from holdfast.traces.writers.losses import Losses
from holdfast.traces.writers.registry import WRITERS


def turn(num_blocks: int, first: int = 0, gap_s: float = 0.0, **fields: Any) -> Turn:
    ids = tuple(range(first, first + num_blocks))
    return Turn(gap_s, 64 * num_blocks + 10, 5, ids, **fields)


def session(*turns: Turn, session_id: str = "a", **fields: Any) -> Session:
    return Session(session_id, 64, turns, "test", **fields)


def rows(name: str, *sessions: Session, **options: Any) -> tuple[list[dict[str, Any]], Losses]:
    file = io.BytesIO()
    losses = WRITERS[name](sessions, file, **options)
    return [msgspec.json.decode(line) for line in file.getvalue().splitlines()], losses


@pytest.fixture
def again(tmp_path: Path) -> Callable[..., list[Session]]:
    def build(name: str, sessions: Iterable[Session]) -> list[Session]:
        path = tmp_path / "again.jsonl"
        write_sessions(sessions, path, name, None)
        return list(read_sessions(path))

    return build


def test_mooncake_has_an_arrival_a_turn_in_order_of_time() -> None:
    long = session(turn(8, latency_s=2.0), turn(16, gap_s=1.5), start_s=1.0)
    late = session(turn(8, 100), session_id="b", start_s=2.25)
    written, losses = rows("mooncake", long, late)
    assert [row["timestamp"] for row in written] == [1000, 2250, 4500]
    assert [row["input_length"] for row in written] == [522, 522, 1034]
    assert losses == {"Session.turns": 1, "Turn.latency_s": 1, "Session.block_size_tokens": 2}


def test_mooncake_blocks_are_shared_as_far_as_full_ones() -> None:
    one, other, third = (session(turn(8 * n), session_id=f"{n}", start_s=0.0) for n in (1, 2, 3))
    written, _ = rows("mooncake", one, other, third)
    first, second, last = (row["hash_ids"] for row in written)
    assert [len(ids) for ids in (first, second, last)] == [2, 3, 4]
    assert first[:1] == second[:1] == last[:1]
    assert second[:2] == last[:2]
    # The partial last block is not shared.
    assert len({*first, *second, *last}) == 3 + 3


def test_larger_block_is_shared_only_if_all_of_it_is() -> None:
    prompts = [tuple(range(8)), (*range(7), 99)]
    sessions = [
        session(Turn(0.0, 512, 1, ids), session_id=f"{number}", start_s=0.0)
        for number, ids in enumerate(prompts)
    ]
    (one, other), _ = rows("mooncake", *sessions)
    assert one["hash_ids"] != other["hash_ids"]


def test_mooncake_counts_what_it_had_to_assume() -> None:
    _, losses = rows("mooncake", session(turn(8, model="m"), turn(8)))
    assert losses["Session without start_s"] == losses["Turn without latency_s"] == 1
    assert losses["Turn.model"] == 1


def test_smaller_blocks_split_and_odd_sizes_are_an_error() -> None:
    ((row,), _) = rows("mooncake", session(turn(2), start_s=0.0), block_size_tokens=32)
    assert len(row["hash_ids"]) == 5
    with pytest.raises(
        ConfigError, match="blocks of 64 tokens, which cannot be written as blocks of 96"
    ):
        rows("mooncake", session(turn(2)), block_size_tokens=96)


def test_agentic_mooncake_has_dependencies() -> None:
    tools = (ToolSpan("Task", None, 0.5, 4.0, False),)
    main = session(
        turn(2, latency_s=1.0, ended_by="tool", tools=tools), turn(3, gap_s=5.0), start_s=2.0
    )
    child = session(
        *(turn(2, 50, latency_s=1.0), turn(3, 50, gap_s=0.5, latency_s=0.25)),
        session_id="a/x",
        parent_id="a",
        parent_turn=0,
        join_turn=1,
    )
    (first, second, third, fourth), losses = rows("agentic-mooncake", main, child)
    assert (first["request_id"], first["timestamp"], first["branches"]) == ("a:0", 2000, ["a/x:0"])
    assert (third["wait_for"], third["delay"], third["timestamp"]) == (["a:0"], 0, 3000)
    assert (fourth["wait_for"], fourth["delay"]) == (["a/x:0"], 500)
    # The parent continues at 8 s, the sub-agent ends at 4.75 s.
    assert second["wait_for"] == ["a:0", "a/x:1"]
    assert second["delay"] + second["tool_wait_ms"] == 3250
    (event,) = second["tool_events"]
    assert (event["tool_class"], event["started_at_unix_ms"], event["duration_ms"]) == (
        "Task",
        3500,
        3500,
    )
    assert losses == {"Turn.latency_s": 3, "Turn.ended_by": 1}


def test_agentic_mooncake_drops_joins_of_unknown_latency() -> None:
    main = session(turn(2), turn(3, gap_s=5.0))
    child = session(turn(2, 50), session_id="x", parent_id="a", parent_turn=0, join_turn=1)
    written, losses = rows("agentic-mooncake", main, child)
    assert written[1]["wait_for"] == ["a:0"]
    assert losses["Session.join_turn"] == 1


def test_weka_nests_sub_agents_after_their_calls() -> None:
    main = session(
        turn(2, latency_s=1.0, ended_by="tool"), turn(3, gap_s=9.0, trigger="tool_result")
    )
    child = session(
        turn(2, 50, model="m"), session_id="a/x", parent_id="a", parent_turn=0, agent="E"
    )
    ((document,), losses) = rows("weka", main, child)
    first, nested, second = document["requests"]
    assert (document["id"], document["models"], document["block_size"]) == ("a", ["m"], 64)
    assert (first["stop"], first["api_time"], first["in"]) == ("tool_use", 1.0, 138)
    assert (nested["agent_id"], nested["subagent_type"], nested["t"]) == ("x", "E", 1.0)
    assert (second["t"], second["think_time"], second["trigger"]) == (10.0, 9.0, "tool_result")
    assert not losses


def test_weka_rejects_other_or_mixed_block_sizes() -> None:
    with pytest.raises(ConfigError, match="none can be set"):
        rows("weka", session(turn(1)), block_size_tokens=16)
    child = replace(session(turn(1), session_id="x", parent_id="a"), block_size_tokens=16)
    with pytest.raises(ConfigError, match="'x' has blocks of 16 tokens and its main agent of 64"):
        rows("weka", session(turn(1)), child)


def test_parent_outside_of_the_family_counts_as_lost() -> None:
    others = [session(turn(8), session_id=name) for name in ("a", "b")]
    child = session(turn(8), session_id="x", parent_id="a")
    for name in ("weka", "agentic-mooncake"):
        assert rows(name, *others, child)[1]["Session.parent_id"] == 1


def _kept(
    sessions: Iterable[Session], session_fields: set[str], turn_fields: set[str]
) -> list[Any]:
    """Return the fields that a round trip keeps."""
    return [
        (
            {name: getattr(one, name) for name in session_fields},
            [{name: getattr(each, name) for name in turn_fields} for each in one.turns],
        )
        for one in sessions
    ]


@given(data=st.data())
@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_weka_round_trip_is_exact(
    recordings: Any, renumbered: Any, data: Any, tmp_path_factory: Any
) -> None:
    sessions = [
        replace(
            one,
            parent_turn=0 if one.parent_id else None,
            agent="main" if not one.parent_id else "x",
        )
        for one in data.draw(recordings)
    ]
    path = tmp_path_factory.mktemp("w") / "w.jsonl"
    write_sessions(sessions, path, "weka", None)
    fields = {"session_id", "block_size_tokens", "parent_id", "parent_turn", "agent"}
    turn_fields = {
        *("gap_s", "prompt_tokens", "output_tokens", "block_ids", "trigger", "ended_by"),
        *("model", "latency_s"),
    }
    found = sorted(read_sessions(path), key=lambda one: one.session_id)
    expected = sorted(sessions, key=lambda one: one.session_id)
    assert _kept(renumbered(found), fields, turn_fields) == _kept(
        renumbered(expected), fields, turn_fields
    )


@given(data=st.data())
@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_agentic_mooncake_round_trip_is_exact(
    recordings: Any, renumbered: Any, data: Any, tmp_path_factory: Any
) -> None:
    sessions = [
        replace(one, parent_turn=0 if one.parent_id else None, join_turn=None)
        for one in data.draw(recordings)
    ]
    path = tmp_path_factory.mktemp("m") / "m.jsonl"
    write_sessions(sessions, path, "agentic-mooncake", 16)
    fields = {"session_id", "parent_id", "parent_turn"}
    turn_fields = {"gap_s", "prompt_tokens", "output_tokens"}
    # The reader yields families depth first, the recording any order with parents first.
    found = sorted(read_sessions(path), key=lambda one: one.session_id)
    expected = sorted(sessions, key=lambda one: one.session_id)
    assert _kept(found, fields, turn_fields) == _kept(expected, fields, turn_fields)


def test_mooncake_round_trip_is_exact(again: Any, write_lines: Any) -> None:
    arrivals = [
        {
            "timestamp": 27482 + n,
            "input_length": 600 + n,
            "output_length": n,
            "hash_ids": [5, 6 + n],
        }
        for n in range(5)
    ]
    sessions = list(read_sessions(write_lines("m.jsonl", *arrivals)))
    found = again("mooncake", sessions)
    assert [(one.start_s, one.turns) for one in found] == [
        (one.start_s, one.turns) for one in sessions
    ]
    assert [one.start_s for one in again("holdfast", sessions)] == [one.start_s for one in sessions]


def test_weka_can_write_a_directory_with_a_file_a_main_agent(tmp_path: Path) -> None:
    sessions = [session(turn(1), session_id=name) for name in ("a", "b")]
    write_sessions(sessions, tmp_path / "corpus", "weka", None)
    assert [one.session_id for one in read_sessions(tmp_path / "corpus")] == ["a", "b"]
    assert sorted(path.name for path in (tmp_path / "corpus").iterdir()) == [
        "trace_0000.json",
        "trace_0001.json",
    ]


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_source_that_fails_leaves_no_output(tmp_path: Path, name: str) -> None:
    def failing() -> Any:
        yield session(turn(8))
        raise TraceError("broken", source="x")

    with pytest.raises(TraceError, match="broken"):
        write_sessions(failing(), tmp_path / "out.jsonl", name, None)
    with pytest.raises(TraceError, match="no session to write"):
        write_sessions([], tmp_path / "out.jsonl", name, None)
    assert list(tmp_path.iterdir()) == []


def test_other_output_names_and_unknown_formats_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.jsonl"):
        write_sessions([], tmp_path / "out.txt", "mooncake", None)
    with pytest.raises(ConfigError, match="format 'x'; expected one of holdfast"):
        write_sessions([], tmp_path / "out.jsonl", "x", None)
