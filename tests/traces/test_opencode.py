"""Reader of OpenCode's exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session, SessionEvent, ToolSpan, common_prefix_length


def tokens(prompt: int, output: int = 30, reasoning: int = 20, cached: int = 0) -> dict[str, Any]:
    cache = {"read": cached, "write": 100}
    return {
        "input": prompt - cached - 100,
        "output": output,
        "reasoning": reasoning,
        "cache": cache,
    }


def user(time_s: int, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"info": {"role": "user", "time": {"created": time_s * 1000}}, "parts": list(parts)}


def assistant(time_s: int, *parts: dict[str, Any], **info: Any) -> dict[str, Any]:
    fields = {
        "role": "assistant",
        "time": {"created": time_s * 1000},
        "modelID": "m",
        "providerID": "p",
        "agent": "build",
    } | info
    return {"info": fields, "parts": list(parts)}


def text(content: str, end_s: int | None = None) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "text", "text": content}
    return part if end_s is None else part | {"time": {"start": 0, "end": end_s * 1000}}


def tool(start_s: int, end_s: int, name: str = "bash", **arguments: Any) -> dict[str, Any]:
    state = {
        "status": "completed",
        "input": arguments,
        "output": f"output {start_s}",
        "time": {"start": start_s * 1000, "end": end_s * 1000},
    }
    return {"type": "tool", "callID": f"c{start_s}", "tool": name, "state": state}


START = {"type": "step-start"}


def finish(used: dict[str, Any], reason: str = "tool-calls") -> dict[str, Any]:
    return {"type": "step-finish", "reason": reason, "tokens": used}


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(*messages: dict[str, Any], **info: Any) -> Session:
        export = {"info": {"id": "s", "version": "1.1"} | info, "messages": list(messages)}
        (session,) = read_sessions(write_lines("export.json", export))
        return session

    return build


def shared_blocks(session: Session, left: int, right: int) -> int:
    turns = session.turns
    return common_prefix_length(turns[left].block_ids, turns[right].block_ids)


def conversation() -> list[dict[str, Any]]:
    return [
        user(0, text("please")),
        assistant(1, START, tool(5, 25, command="go test ./..."), finish(tokens(6400))),
        assistant(26, START, text("done", 30), finish(tokens(7040, 10, 0), "stop")),
        user(90, text("thanks")),
        assistant(91, START, text("bye", 93), finish(tokens(7200, 5, 0), "stop")),
    ]


def test_a_step_is_a_turn_with_its_lengths_and_times(read: Any) -> None:
    session = read(*conversation())
    assert [turn.prompt_tokens for turn in session.turns] == [6400, 7040, 7200]
    assert [turn.output_tokens for turn in session.turns] == [50, 10, 5]
    assert [turn.gap_s for turn in session.turns] == [0.0, 21.0, 61.0]
    assert [turn.trigger for turn in session.turns] == ["user", "tool_result", "user"]
    assert [turn.ended_by for turn in session.turns] == ["tool", "human", "human"]
    assert (session.turns[0].tool_name, session.turns[0].tool_command) == ("bash", "go test")
    assert (session.session_id, session.agent) == ("s", "main")


def test_prompts_share_repeated_messages(read: Any) -> None:
    session = read(*conversation())
    assert (shared_blocks(session, 0, 1), shared_blocks(session, 1, 2)) == (100, 110)


def test_steps_in_one_message_equal_steps_in_own_messages(read: Any) -> None:
    apart = conversation()
    together = [
        apart[0],
        assistant(1, *apart[1]["parts"], *apart[2]["parts"]),
        *apart[3:],
    ]
    one, other = read(*apart), read(*together)
    assert [turn.block_ids for turn in one.turns] == [turn.block_ids for turn in other.turns]
    # Only the message's own time shows the second after the tool.
    assert [turn.gap_s for turn in other.turns] == [0.0, 20.0, 61.0]
    assert [turn.ended_by for turn in other.turns] == ["tool", "human", "human"]


def test_message_usage_counts_if_its_only_step_has_none(read: Any) -> None:
    session = read(
        user(0, text("a")),
        assistant(
            1,
            text("b"),
            tokens=tokens(640),
            finish="stop",
            time={"created": 1000, "completed": 4000},
        ),
        user(5, text("c")),
        assistant(6, text("d"), tokens=tokens(700)),
    )
    assert [turn.prompt_tokens for turn in session.turns] == [640, 700]
    assert [turn.ended_by for turn in session.turns] == ["human", "unknown"]
    assert session.turns[1].gap_s == 2.0


def test_compaction_is_a_turn_that_keeps_only_its_summary(read: Any) -> None:
    session = read(
        user(0, text("x" * 400)),
        assistant(1, text("b", 2), finish(tokens(6400), "stop")),
        user(3, {"type": "compaction", "auto": True}),
        assistant(4, text("y" * 400, 9), finish(tokens(3200), "stop"), summary=True),
        user(10, text("on")),
        assistant(11, text("c", 12), finish(tokens(6500), "stop")),
    )
    # Another agent, with another head, writes the summary.
    assert shared_blocks(session, 0, 1) == 0
    # The first prompt is head except for about 100 tokens.
    assert 97 <= shared_blocks(session, 0, 2) < 100
    assert session.events == (SessionEvent("compaction", 2, 0.0),)


def test_summary_of_a_user_message_is_no_compaction(read: Any) -> None:
    messages = conversation()
    messages[3]["info"]["summary"] = {"title": "t", "diffs": []}
    assert shared_blocks(read(*messages), 1, 2) == 110


def test_withdrawn_input_is_not_in_the_prompt(read: Any) -> None:
    kept = read(user(0, text("a")), assistant(1, text("b")))
    ignored = read(user(0, text("a"), text("z" * 999) | {"ignored": True}), assistant(1, text("b")))
    assert ignored.turns == kept.turns


def test_message_that_failed_without_output_is_no_turn(read: Any) -> None:
    session = read(
        user(0, text("a")),
        assistant(1, START, error={"name": "APIError"}, tokens=tokens(100, 0, 0)),
        assistant(5, text("b"), finish(tokens(640), "stop")),
    )
    assert [turn.prompt_tokens for turn in session.turns] == [640]


def test_session_with_a_parent_is_a_sub_agent(read: Any) -> None:
    session = read(*conversation(), parentID="other")
    assert (session.agent, session.parent_id) == ("build", None)


def test_attachment_counts_once_in_any_encoding(write_lines: Any) -> None:
    file = {"type": "file", "mime": "image/png", "url": "data:" + "x" * 100_000}
    messages = [user(0, file), assistant(1, text("b" * 400))]
    path = write_lines("a.json", {"info": {"id": "s"}, "messages": messages})
    reports: list[FileReport] = []
    (session,) = read_sessions(path, on_file=reports.append)
    assert session.turns[0].prompt_tokens == 1500
    assert 100 <= session.turns[0].output_tokens <= 110
    assert reports[0].num_estimated_lengths == 2


def test_a_gap_without_times_is_0_and_counted(write_lines: Any) -> None:
    messages = [user(0, text("a")), assistant(1, text("b")), assistant(9, text("c"))]
    path = write_lines("a.json", {"info": {"id": "s"}, "messages": messages})
    reports: list[FileReport] = []
    (session,) = read_sessions(path, on_file=reports.append)
    assert session.turns[1].gap_s == 0.0
    assert reports[0].num_estimated_gaps == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"info": {"role": 5}, "parts": []}, r"messages\[1\]\.info\.role: Expected `str`"),
        ({"info": {}}, r"messages\[1\]: Object missing required field `parts`"),
        (
            assistant(1, finish(tokens(10**9))),
            r"messages\[1\]\.parts\[0\]\.tokens\.input: Expected `int` <= 16777216",
        ),
    ],
    ids=["role", "parts", "huge"],
)
def test_a_bad_message_is_an_error_that_names_the_field(
    read: Any, bad: dict[str, Any], message: str
) -> None:
    with pytest.raises(TraceError, match=rf"export\.json: {message}"):
        read(user(0, text("a")), bad)


def test_a_session_without_an_answer_is_an_error(read: Any) -> None:
    with pytest.raises(TraceError, match=r"export\.json: holds no answered request"):
        read(user(0, text("a")))


def test_turns_have_models_latencies_cache_reads_and_tools(read: Any) -> None:
    messages = conversation()
    messages[1]["parts"].insert(2, tool(6, 9, "read"))
    messages[1]["parts"][2]["state"]["status"] = "error"
    first, second, _ = read(*messages).turns
    assert (first.model, first.latency_s, second.latency_s) == ("m", 5.0, 4.0)
    assert first.tools == (
        ToolSpan("bash", "go test", 0.0, 19.0, is_error=False),
        ToolSpan("read", None, 0.0, 3.0, is_error=True),
    )
    assert second.cached_tokens == 0


def task(start_s: int, end_s: int, child: Any, **arguments: Any) -> dict[str, Any]:
    part = tool(start_s, end_s, "task", **arguments)
    part["state"]["metadata"] = {"sessionId": child}
    return part


@pytest.fixture
def read_family(write_lines: Any, tmp_path: Any) -> Any:
    def build(main: list[dict[str, Any]], *children: str, reports: Any = None) -> list[Session]:
        for child in children:
            info = {"id": child, "version": "1.1", "parentID": "s"}
            messages = conversation()
            write_lines(f"{child}.json", {"info": info, "messages": messages})
        write_lines("z.json", {"info": {"id": "s", "version": "1.1"}, "messages": main})
        return list(read_sessions(tmp_path, on_file=reports))

    return build


def delegating(*tasks: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        *conversation()[:3],
        user(90, text("delegate")),
        assistant(91, START, *tasks, finish(tokens(7200))),
        assistant(130, START, text("done", 140), finish(tokens(7400, 10, 0), "stop")),
    ]


def test_the_call_of_a_sub_agent_names_its_export(read_family: Any) -> None:
    main, one, two = read_family(delegating(task(95, 120, "a"), task(95, 110, "b")), "a", "b")
    assert [main.session_id, one.session_id, two.session_id] == ["s", "a", "b"]
    assert (one.parent_id, one.parent_turn, one.join_turn, one.agent) == ("s", 2, 3, "build")
    assert [span.session_id for span in main.turns[2].tools] == ["a", "b"]
    assert two.join_turn == 3


def test_background_or_endless_sub_agent_has_no_join(
    read_family: Any,
) -> None:
    lasting = task(95, 110, "b")
    del lasting["state"]["time"]["end"]
    background = task(95, 96, "a", run_in_background=True)
    _, one, two = read_family(delegating(background, lasting), "a", "b")
    assert (one.parent_turn, one.join_turn, two.parent_turn, two.join_turn) == (2, None, 2, None)


@pytest.mark.parametrize("metadata", [None, 5, "x", {"sessionId": 5}, {"sessionId": "gone"}])
def test_call_without_a_sub_agent_id_links_none(read_family: Any, metadata: Any) -> None:
    part = task(95, 120, "a")
    part["state"]["metadata"] = metadata
    main, one = read_family(delegating(part), "a")
    assert main.turns[2].tools[0].session_id is None
    assert (one.parent_id, one.parent_turn) == ("s", None)


def test_export_with_a_missing_parent_counts_as_orphan(write_lines: Any, tmp_path: Any) -> None:
    info = {"id": "a", "version": "1.1", "parentID": "gone"}
    write_lines("a.json", {"info": info, "messages": conversation()})
    reports: list[FileReport] = []
    (session,) = read_sessions(tmp_path, on_file=reports.append)
    assert (session.parent_id, reports[0].num_orphans) == (None, 1)


def test_lenient_reads_a_family_without_a_broken_export(write_lines: Any, tmp_path: Any) -> None:
    write_lines("a.json", {"info": {"id": "a", "parentID": "s"}, "messages": conversation()})
    write_lines("s.json", {"info": {"id": "s", "version": "1"}, "messages": 5})
    with pytest.raises(TraceError, match=r"s\.json: messages: Expected `array`"):
        list(read_sessions(tmp_path))
    skipped: list[TraceError] = []
    (session,) = read_sessions(tmp_path, on_skipped=skipped.append)
    assert (session.session_id, session.parent_id, len(skipped)) == ("a", None, 1)


def test_lenient_broken_export_is_not_an_unanswered_session(write_lines: Any) -> None:
    path = write_lines("s.json", {"info": {"id": "s", "version": "1"}, "messages": 5})
    skipped: list[TraceError] = []
    reports: list[FileReport] = []
    assert not list(read_sessions(path, on_file=reports.append, on_skipped=skipped.append))
    assert (len(skipped), reports) == (1, [])


def test_sub_agent_called_twice_was_started_by_the_first_call(read_family: Any) -> None:
    again = assistant(131, START, task(135, 150, "a"), finish(tokens(7500)))
    last = assistant(160, START, text("done", 170), finish(tokens(7600, 10, 0), "stop"))
    _, one = read_family([*delegating(task(95, 120, "a")), again, last], "a")
    assert (one.parent_turn, one.join_turn) == (2, 5)


@pytest.mark.parametrize("given", ["opencode", "opencode/opencode.db"])
def test_error_for_the_database_tells_how_to_export(tmp_path: Path, given: str) -> None:
    home = tmp_path / "opencode"
    (home / "storage" / "session").mkdir(parents=True)
    for name in ("opencode.db", "auth.json", "storage/session/ses_1.json"):
        (home / name).write_text("{}")
    with pytest.raises(TraceError) as caught:
        list(read_sessions(tmp_path / given))
    assert "opencode export SESSION" in (caught.value.hint or "")
