"""Reader of WEKA's Claude Code traces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session


def read(path: Path) -> list[Session]:
    return list(read_sessions(path))


def test_a_call_becomes_a_turn_with_its_recorded_figures(call: Any, write_trace: Any) -> None:
    path = write_trace([call(0, [1, 2]), call(9, [1, 2, 3], think_time=4.5, out=7)])
    (session,) = read(path)
    second = session.turns[1]
    assert (second.gap_s, second.prompt_tokens, second.output_tokens) == (4.5, 202, 7)
    assert session.block_size_tokens == 64


@pytest.mark.parametrize(
    ("stop", "ended_by"),
    [("tool_use", "tool"), ("end_turn", "human"), ("max_tokens", "unknown"), ("", "unknown")],
)
def test_recorded_stop_tells_the_turn_end(
    call: Any, write_trace: Any, stop: Any, ended_by: Any
) -> None:
    (session,) = read(write_trace([call(0, [1], stop=stop)]))
    assert session.turns[0].ended_by == ended_by


def test_the_trigger_is_the_recorded_one(call: Any, write_trace: Any) -> None:
    path = write_trace([call(0, [1]), call(9, [1], trigger="user", input_types=["tool_result"])])
    assert read(path)[0].turns[1].trigger == "user"


@pytest.mark.parametrize(
    ("input_types", "stop_before", "trigger"),
    [
        (["text", "tool_result"], "end_turn", "tool_result"),
        (["text"], "tool_use", "user"),
        ([], "tool_use", "tool_result"),
        ([], "end_turn", "user"),
    ],
)
def test_missing_trigger_follows_from_input_or_last_stop(
    call: Any, write_trace: Any, input_types: Any, stop_before: Any, trigger: Any
) -> None:
    path = write_trace([call(0, [1], stop=stop_before), call(9, [1], input_types=input_types)])
    assert read(path)[0].turns[1].trigger == trigger


def test_equal_hashes_after_different_prefixes_get_different_ids(
    call: Any, write_trace: Any
) -> None:
    (session,) = read(write_trace([call(0, [1, 2, 5]), call(9, [1, 3, 5])]))
    first, second = (turn.block_ids for turn in session.turns)
    assert first[0] == second[0]
    assert first[2] != second[2]


def test_global_ids_are_shared_across_files_but_local_ones_not(
    call: Any, write_trace: Any, tmp_path: Path
) -> None:
    for name, scope in (("a", "global"), ("b", "global"), ("c", "local"), ("d", "local")):
        write_trace([call(0, [1, 2])], f"{name}.json", hash_id_scope=scope)
    a, b, c, d = (session.turns[0].block_ids for session in read(tmp_path))
    assert a == b
    assert len({a, c, d}) == 3


def test_duplicate_calls_are_one_turn_and_gaps_start_after_both(
    call: Any, write_trace: Any
) -> None:
    path = write_trace(
        [
            call(0, [1], stop="", out=5, think_time=None),
            call(10, [1], type="n", stop="tool_use", out=6, think_time=None),
            call(15, [1, 2], think_time=None),
        ]
    )
    first, second = read(path)[0].turns
    assert (first.output_tokens, first.ended_by) == (6, "tool")
    assert second.gap_s == 3.0  # 15 - (10 + 2 s of api_time)


def test_stop_of_either_duplicate_call_is_kept(call: Any, write_trace: Any) -> None:
    path = write_trace(
        [
            call(0, [1], stop="tool_use", out=5),
            call(10, [1], type="n", stop="", out=6),
            call(15, [1, 2], think_time=None),
        ]
    )
    first, second = read(path)[0].turns
    assert (first.output_tokens, first.ended_by) == (5, "tool")
    assert second.gap_s == 3.0


def test_a_subagent_is_a_session_of_its_own(call: Any, write_trace: Any) -> None:
    subagent = {"type": "subagent", "t": 3, "agent_id": "x", "requests": [call(3, [1, 7])]}
    main, first, second = read(write_trace([call(0, [1]), subagent, subagent]))
    assert [main.session_id, first.session_id, second.session_id] == ["a", "a/x", "a/x#2"]
    assert first.turns[0].block_ids[0] == main.turns[0].block_ids[0]


def test_subagent_has_a_parent_if_that_has_requests(call: Any, write_trace: Any) -> None:
    inner = {"type": "subagent", "t": 4, "agent_id": "y", "requests": [call(4, [1, 8])]}
    outer = {"type": "subagent", "t": 3, "agent_id": "x", "requests": [call(3, [1, 7]), inner]}
    silent = {"type": "subagent", "t": 3, "agent_id": "z", "requests": [inner]}
    sessions = read(write_trace([call(0, [1]), outer, silent]))
    parents = {session.session_id: session.parent_id for session in sessions}
    assert parents == {"a": None, "a/x": "a", "a/x/y": "a/x", "a/z/y": None}


def test_a_gap_that_is_not_recorded_is_estimated_and_counted(call: Any, write_trace: Any) -> None:
    reports: list[FileReport] = []
    path = write_trace([call(0, [1]), call(9, [1], think_time=None)])
    (session,) = read_sessions(path, on_file=reports.append)
    assert session.turns[1].gap_s == 7.0
    assert reports[0].num_estimated_gaps == 1


@pytest.mark.parametrize(
    ("fields", "where", "expected"),
    [
        ({"t": -1.0}, "requests[1].t", ">= 0"),
        ({"in": -5}, "requests[1].in", ">= 0"),
        ({"in": "many"}, "requests[1].in", "Expected `int`"),
        ({"hash_ids": [1, "x"]}, "requests[1].hash_ids[1]", "Expected `int`"),
        ({"type": "q"}, "requests[1].type", "Invalid value 'q'"),
        ({"trigger": "cron"}, "requests[1].trigger", "Invalid enum value 'cron'"),
        ({"in": 127}, "requests[1].hash_ids", "do not fit"),
    ],
)
def test_a_bad_field_is_named_with_its_request(
    call: Any, write_trace: Any, fields: Any, where: Any, expected: Any
) -> None:
    path = write_trace([call(0, [1]), call(9, [1, 2]) | fields])
    with pytest.raises(TraceError) as caught:
        read(path)
    assert caught.value.where == where
    assert caught.value.source == str(path)
    assert expected in str(caught.value)


def test_a_missing_field_is_named(call: Any, write_trace: Any) -> None:
    request = call(0, [1])
    del request["out"]
    with pytest.raises(TraceError, match=r"requests\[0\].*`out`"):
        read(write_trace([request]))


def test_a_file_without_requests_is_an_error(write_trace: Any) -> None:
    with pytest.raises(TraceError, match="holds no request"):
        read(write_trace([]))


def test_document_of_another_format_is_an_error_with_a_hint(
    tmp_path: Path,
) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"timestamp": 3, "input_length": 5}')
    with pytest.raises(TraceError) as caught:
        read(path)
    assert caught.value.hint is not None
    assert "WEKA" in caught.value.hint


def test_a_single_calls_latency_is_the_recorded_one(call: Any, write_trace: Any) -> None:
    (session,) = read(write_trace([call(47.1, [1], api_time=16.28, model="m")]))
    assert (session.turns[0].latency_s, session.turns[0].model) == (16.28, "m")


def test_sub_agent_has_its_type_and_calling_turn(call: Any, write_trace: Any) -> None:
    nested = {"t": 4, "type": "subagent", "agent_id": "x", "subagent_type": "Explore"}
    path = write_trace(
        [call(0, [1]), call(3, [1, 2]), nested | {"requests": [call(4, [9], type="n")]}]
    )
    main, explorer = read(path)
    assert (main.agent, explorer.agent) == ("main", "Explore")
    assert (explorer.parent_id, explorer.parent_turn) == (main.session_id, 1)
