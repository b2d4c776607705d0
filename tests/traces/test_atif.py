"""Reader of ATIF trajectories."""

from __future__ import annotations

from typing import Any

import pytest
from tests.traces.atif import agent, step, trajectory

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session, SessionEvent, ToolSpan, common_prefix_length


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(document: dict[str, Any], reports: list[FileReport] | None = None) -> list[Session]:
        path = write_lines("trajectory.json", document)
        return list(read_sessions(path, on_file=None if reports is None else reports.append))

    return build


def shared_blocks(session: Session, left: int, right: int) -> int:
    turns = session.turns
    return common_prefix_length(turns[left].block_ids, turns[right].block_ids)


def conversation() -> dict[str, Any]:
    return trajectory(
        step("user", 0),
        agent(5, 6400, "bash"),
        agent(25, 7040),
        step("user", 90),
        agent(95, 7200),
    )


def test_agent_step_is_a_turn_with_lengths_and_times(read: Any) -> None:
    reports: list[FileReport] = []
    (session,) = read(conversation(), reports)
    assert [turn.prompt_tokens for turn in session.turns] == [6400, 7040, 7200]
    assert [turn.output_tokens for turn in session.turns] == [30, 30, 30]
    # Only a user's step separates an answer's time from a gap.
    assert [turn.gap_s for turn in session.turns] == [0.0, 20.0, 65.0]
    assert reports[0].num_estimated_gaps == 1
    assert [turn.trigger for turn in session.turns] == ["user", "tool_result", "user"]
    assert [turn.ended_by for turn in session.turns] == ["tool", "human", "human"]
    assert (session.turns[0].tool_name, session.turns[0].tool_command) == ("bash", "npm test")
    assert (session.session_id, session.agent) == ("s", "main")


def test_prompts_share_repeated_messages(read: Any) -> None:
    (session,) = read(conversation())
    assert (shared_blocks(session, 0, 1), shared_blocks(session, 1, 2)) == (100, 110)


@pytest.mark.parametrize("version", ["ATIF-v1.0", "ATIF-v1.7", "ATIF-v1.8"])
def test_all_versions_1_are_read(read: Any, version: str) -> None:
    assert read(conversation() | {"schema_version": version})


def test_copied_steps_are_in_the_prompt_but_no_turns(read: Any) -> None:
    copied: dict[str, Any] = {"is_copied_context": True}
    (session,) = read(
        trajectory(
            step("user", 0, message="x" * 4000, **copied),
            agent(1, 999, message="y" * 4000, **copied),
            step("user", 60),
            agent(65),
        )
    )
    assert len(session.turns) == 1
    assert 2000 <= session.turns[0].prompt_tokens <= 2050


def test_step_without_a_call_is_in_the_prompt_but_no_turn(read: Any) -> None:
    (session,) = read(
        trajectory(step("user", 0), agent(1, None, "lint", llm_call_count=0), agent(5, 640))
    )
    assert (len(session.turns), session.turns[0].trigger) == (1, "tool_result")


def test_prompt_of_a_step_with_several_calls_is_estimated(read: Any) -> None:
    reports: list[FileReport] = []
    (session,) = read(
        trajectory(step("user", 0, message="x" * 4000), agent(5, 9000, llm_call_count=3)), reports
    )
    assert 1000 <= session.turns[0].prompt_tokens <= 1010
    assert reports[0].num_estimated_lengths == 1


def test_a_gap_without_times_is_0_and_counted(read: Any) -> None:
    reports: list[FileReport] = []
    (session,) = read(trajectory(step("user"), agent(None, 64), agent(None, 128)), reports)
    assert session.turns[1].gap_s == 0.0
    assert reports[0].num_estimated_gaps == 1


def test_embedded_trajectory_has_parent_and_starting_turn(read: Any) -> None:
    inner = trajectory(
        step("user", 6), agent(8, 320), trajectory_id="x", agent={"name": "searcher"}
    )
    deeper = trajectory(step("user", 6), agent(8, 320), trajectory_id="y", agent={"name": "z"})
    main, searcher, unnamed = read(
        trajectory(
            step("user", 0),
            agent(2, 640, "read"),
            agent(5, 700, "delegate", refs=[{"trajectory_id": "x"}]),
            agent(25, 800),
            subagent_trajectories=[inner | {"subagent_trajectories": [deeper]}],
        )
    )
    assert (searcher.session_id, searcher.agent) == ("s/x", "searcher")
    assert (searcher.parent_id, searcher.parent_turn) == (main.session_id, 1)
    assert searcher.join_turn == 2
    assert (unnamed.session_id, unnamed.parent_id) == ("s/x/y", "s/x")
    assert (unnamed.parent_turn, unnamed.join_turn) == (None, None)


def test_sessions_share_a_recorded_system_message(write_lines: Any) -> None:
    for name in ("a", "b"):
        write_lines(
            f"{name}.json",
            trajectory(
                step("system", 0, message="x" * 4000),
                step("user", 0, message=name),
                agent(2, 3200),
                session_id=name,
            ),
        )
    path = write_lines("c.json", trajectory(step("user"), agent(2, 640), session_id="c"))
    one, two, _ = read_sessions(path.parent)
    shared = common_prefix_length(one.turns[0].block_ids, two.turns[0].block_ids)
    assert 45 <= shared < 50


def test_sessions_share_the_cached_head(write_lines: Any) -> None:
    for name, cached in (("a", 3200), ("b", 2560)):
        steps = (step("user", 0, message=name), agent(2, 6400, cached=cached))
        path = write_lines(f"{name}.json", trajectory(*steps, session_id=name))
    one, two = read_sessions(path.parent)
    assert common_prefix_length(one.turns[0].block_ids, two.turns[0].block_ids) == 40


@pytest.mark.parametrize("first", ["system", "user"])
def test_another_model_shares_nothing(read: Any, first: str) -> None:
    (session,) = read(trajectory(step(first), agent(2, 6400), agent(3, 6500, model_name="other")))
    assert shared_blocks(session, 0, 1) == 0


def test_tool_definitions_are_part_of_the_prompt(read: Any) -> None:
    tools = {"name": "mini", "tool_definitions": [{"name": "bash", "description": "x" * 4000}]}
    (session,) = read(trajectory(step("user", 0, message="a"), agent(2), agent=tools))
    assert 1000 <= session.turns[0].prompt_tokens <= 1050


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": "ATIF-v2.0"}, r"schema_version: unknown version; expected ATIF-v1\."),
        ({"steps": [{"source": 5}]}, r"steps\[0\]\.source: Expected `str`"),
        ({"steps": [agent(1, 1 << 40)]}, r"steps\[0\]\.metrics\.prompt_tokens: Expected `int` <="),
        (
            {"subagent_trajectories": [conversation() | {"schema_version": "x"}]},
            r"subagent_trajectories\[0\]\.schema_version: unknown version",
        ),
        (
            {"subagent_trajectories": [conversation(), conversation()]},
            "holds two sessions with one id",
        ),
    ],
    ids=["version", "source", "huge", "inner-version", "twins"],
)
def test_a_bad_trajectory_is_an_error_that_names_the_field(
    read: Any, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(TraceError, match=rf"trajectory\.json: {message}"):
        read(conversation() | change)


def test_turn_has_recorded_values_and_no_others(read: Any) -> None:
    (session,) = read(trajectory(step("user", 0), agent(4, 640, "bash", cached=600), agent(9, 700)))
    first, second = session.turns
    assert (first.model, first.latency_s, first.cached_tokens) == ("m", 4.0, 600)
    assert first.tools == (ToolSpan("bash", "npm test"),)
    # The second request's time is not recorded.
    assert second.latency_s is None


def test_bad_embedded_trajectory_can_be_skipped(write_lines: Any) -> None:
    inner = conversation() | {"schema_version": "x"}
    path = write_lines("a.json", conversation() | {"subagent_trajectories": [inner]})
    skipped: list[TraceError] = []
    (session,) = read_sessions(path, on_skipped=skipped.append)
    assert session.session_id == "s"
    assert [error.where for error in skipped] == ["subagent_trajectories[0].schema_version"]


def test_second_agent_of_one_name_can_be_skipped(write_lines: Any) -> None:
    path = write_lines("a.json", conversation() | {"subagent_trajectories": [conversation()] * 2})
    skipped: list[TraceError] = []
    sessions = list(read_sessions(path, on_skipped=skipped.append))
    assert [session.session_id for session in sessions] == ["s", "s/s"]
    assert len(skipped) == 1


def continued(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return trajectory(*steps, session_id="s-cont-1", **fields)


def test_trajectory_continued_in_another_document_is_one_session(
    write_lines: Any, tmp_path: Any
) -> None:
    copied = step("user", 90, message="x" * 400, is_copied_context=True)
    write_lines("t.cont-1.json", continued(copied, agent(95, 3200), step("user", 100), agent(105)))
    first = conversation() | {"continued_trajectory_ref": "t.cont-1.json"}
    path = write_lines("t.json", first)
    reports: list[FileReport] = []
    (session,) = read_sessions(tmp_path, on_file=reports.append)
    assert (session.session_id, len(session.turns)) == ("s", 5)
    assert session.events == (SessionEvent("compaction", 3),)
    assert session.turns[3].prompt_tokens == 3200
    assert [(report.path.name, report.num_sessions) for report in reports] == [
        ("t.json", 1),
        ("t.cont-1.json", 0),
    ]
    (alone,) = read_sessions(path)
    assert (len(alone.turns), alone.events) == (3, ())


def test_continuation_without_copied_steps_keeps_the_history(
    write_lines: Any, tmp_path: Any
) -> None:
    write_lines("t2.json", continued(step("user", 100), agent(105, 7400)))
    write_lines("t.json", conversation() | {"continued_trajectory_ref": "./t2.json"})
    (session,) = read_sessions(tmp_path)
    assert session.events == ()
    assert shared_blocks(session, 2, 3) == 7200 // 64


def test_sub_agent_in_another_document_has_its_parent(write_lines: Any, tmp_path: Any) -> None:
    write_lines("sub.json", trajectory(step("user", 6), agent(8, 320), agent={"name": "searcher"}))
    refs = [{"session_id": "s", "trajectory_path": "sub.json"}]
    steps = (step("user", 0), agent(5, 700, "delegate", refs=refs), agent(25, 800))
    write_lines("t.json", trajectory(*steps))
    main, searcher = read_sessions(tmp_path)
    assert (main.session_id, searcher.session_id) == ("s", "s/sub.json")
    assert (searcher.parent_id, searcher.parent_turn, searcher.join_turn) == ("s", 0, 1)
    assert searcher.agent == "searcher"


def test_documents_with_circular_references_are_read_once(write_lines: Any, tmp_path: Any) -> None:
    write_lines("a.json", conversation() | {"continued_trajectory_ref": "b.json"})
    write_lines("b.json", continued(step("user"), agent(1), continued_trajectory_ref="a.json"))
    (session,) = read_sessions(tmp_path)
    assert len(session.turns) == 4


def test_reference_to_a_missing_document_is_no_error(write_lines: Any) -> None:
    path = write_lines("t.json", conversation() | {"continued_trajectory_ref": "../gone.json"})
    (session,) = read_sessions(path)
    assert len(session.turns) == 3


def test_a_continuation_of_an_unknown_version_is_an_error(write_lines: Any, tmp_path: Any) -> None:
    write_lines("b.json", continued(step("user"), agent(1)) | {"schema_version": "ATIF-v2.0"})
    write_lines("a.json", conversation() | {"continued_trajectory_ref": "b.json"})
    with pytest.raises(TraceError, match=r"b\.json: schema_version: unknown version"):
        list(read_sessions(tmp_path))


def test_tool_definitions_stay_after_a_compaction(write_lines: Any, tmp_path: Any) -> None:
    tools = {"name": "mini", "tool_definitions": [{"name": "bash", "description": "x" * 4000}]}
    copied = step("user", 90, is_copied_context=True)
    write_lines("t2.json", continued(copied, agent(95)))
    first = trajectory(step("user", 0), agent(2), agent=tools, continued_trajectory_ref="t2.json")
    write_lines("t.json", first)
    (session,) = read_sessions(tmp_path)
    assert 1000 <= session.turns[1].prompt_tokens <= 1100


def test_lenient_reads_references_of_an_unknown_version_alone(
    write_lines: Any, tmp_path: Any
) -> None:
    write_lines("b.json", continued(step("user"), agent(1)))
    first = conversation() | {"continued_trajectory_ref": "b.json", "schema_version": "ATIF-v2.0"}
    write_lines("a.json", first)
    skipped: list[TraceError] = []
    (session,) = read_sessions(tmp_path, on_skipped=skipped.append)
    assert (session.session_id, len(skipped)) == ("s-cont-1", 1)
