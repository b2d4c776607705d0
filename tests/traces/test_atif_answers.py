"""Answers of several ATIF steps: their grouping, usage and turn end."""

from __future__ import annotations

from typing import Any

import pytest
from tests.traces.atif import agent, step, trajectory

from holdfast.traces.formats.cache_usage import CacheUsage, whole_prompts
from holdfast.traces.io import read_sessions
from holdfast.traces.record import Session


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(*steps: dict[str, Any], **fields: Any) -> list[Session]:
        return list(read_sessions(write_lines("trajectory.json", trajectory(*steps, **fields))))

    return build


def prompts(session: Session) -> list[int]:
    return [turn.prompt_tokens for turn in session.turns]


def endings(session: Session) -> list[str]:
    return [turn.ended_by for turn in session.turns]


def used(prompt: int, cached: int = 0, written: int = 0, answer: int = 7) -> dict[str, Any]:
    extra = {"cache_creation_input_tokens": written, "cache_read_input_tokens": cached}
    metrics = {"prompt_tokens": prompt, "completion_tokens": answer, "cached_tokens": cached}
    return {"metrics": metrics | {"extra": extra}}


def part(time_s: int, tool: str, **fields: Any) -> dict[str, Any]:
    """Build a call in a step of its own, as Harbor writes it without a text."""
    return agent(time_s, None, tool, message=f"Executed {tool} {tool}", **fields)


def harbors() -> list[dict[str, Any]]:
    """Build three answers as Harbor writes them, one step for each part."""
    return [
        step("user", 0),
        part(3, "Read", **used(402, 400, 1000)),
        agent(11, None, **used(1402, 1400, 90)),
        part(12, "Write", **used(1402, 1400, 90)),
        part(13, "Bash", **used(1402, 1400, 90, answer=40)),
        agent(20, None, **used(1500, 1490, 8)),
    ]


def test_consecutive_steps_with_equal_metrics_are_one_answer(read: Any) -> None:
    (session,) = read(*harbors())
    assert endings(session) == ["tool", "tool", "human"]
    assert [[tool.name for tool in turn.tools] for turn in session.turns] == [
        ["Read"],
        ["Write", "Bash"],
        [],
    ]
    assert [turn.trigger for turn in session.turns] == ["user", "tool_result", "tool_result"]
    # Each gap runs from one answer's end to the next answer's end.
    assert [turn.gap_s for turn in session.turns] == [0.0, 10.0, 7.0]
    assert [turn.output_tokens for turn in session.turns] == [7, 40, 7]


def test_cache_writes_added_if_prompts_exclude_them(read: Any) -> None:
    (session,) = read(*harbors())
    # The last step alone does not show it.
    assert prompts(session) == [1402, 1492, 1508]
    assert [turn.cached_tokens for turn in session.turns] == [400, 1400, 1490]


def test_step_without_metrics_joins_the_answer_before_it(read: Any) -> None:
    (session,) = read(
        step("user", 0),
        agent(5, 640),
        part(5, "Read"),
        part(6, "Write"),
        agent(9, 700, "Bash"),
        agent(12, 720),
    )
    assert prompts(session) == [640, 700, 720]
    assert endings(session) == ["tool", "tool", "human"]


def test_text_and_next_call_without_metrics_are_one_answer(read: Any) -> None:
    (session,) = read(
        step("user", 0),
        agent(4),
        agent(5, None, "exec"),
        agent(9, None, "exec"),
        agent(12),
    )
    assert endings(session) == ["tool", "tool", "human"]


@pytest.mark.parametrize(
    "second",
    [
        agent(6, 641),
        agent(6, 640, model_name="other"),
        agent(6, 640, llm_call_count=1),
        agent(6, 640, cached=64),
    ],
    ids=["longer", "model", "own-call", "cached"],
)
def test_steps_of_different_calls_stay_apart(read: Any, second: dict[str, Any]) -> None:
    (session,) = read(step("user", 0), agent(5, 640), second)
    assert len(session.turns) == 2


def test_steps_with_texts_and_results_are_separate_answers(read: Any) -> None:
    # The usage of a made-up model is ignored.
    (session,) = read(
        step("user", 0), agent(5, 640, "bash"), agent(9, 640, "bash"), agent(12, None, "bash")
    )
    assert endings(session) == ["tool", "tool", "tool"]


def test_user_step_separates_answers(read: Any) -> None:
    (session,) = read(step("user", 0), agent(5, 640), step("user", 9), agent(12, 640))
    assert (len(session.turns), endings(session)) == (2, ["human", "human"])


def observed(time_s: int, prompt: int) -> dict[str, Any]:
    return agent(time_s, prompt, observation={"results": [{"content": "$ "}]})


def test_observation_followed_by_the_agent_is_a_tool_result(read: Any) -> None:
    (session,) = read(step("user", 0), observed(10, 640), observed(25, 700), observed(40, 760))
    assert endings(session) == ["tool", "tool", "human"]
    assert [turn.trigger for turn in session.turns] == ["user", "tool_result", "tool_result"]
    assert [(turn.tool_name, turn.tools) for turn in session.turns] == [(None, ())] * 3


def test_observation_followed_by_the_user_ends_for_a_human(read: Any) -> None:
    (session,) = read(step("user", 0), observed(10, 640), step("user", 25), agent(30, 700))
    assert endings(session) == ["human", "human"]
    assert [turn.trigger for turn in session.turns] == ["user", "user"]


def test_system_step_report_is_not_a_user_input(read: Any) -> None:
    seen: dict[str, Any] = {"observation": {"results": [{"content": "context was cut"}]}}
    (session,) = read(
        step("user", 0), observed(10, 640), step("system", 12, **seen), agent(20, 700)
    )
    assert endings(session) == ["tool", "human"]
    assert session.turns[1].gap_s == 2.0


def test_handed_over_summary_is_not_a_human_input(read: Any, write_lines: Any) -> None:
    report = step("system", 12, observation={"results": [{"content": None}]})
    (session,) = read(
        step("user", 0), observed(10, 640), report, step("user", 13), observed(20, 700)
    )
    assert endings(session) == ["tool", "human"]
    copied = step("user", 13, is_copied_context=True)
    rest = trajectory(copied, agent(20, 300), session_id="s")
    write_lines("rest.json", rest)
    path = write_lines(
        "trajectory.json",
        trajectory(step("user", 0), observed(10, 640), continued_trajectory_ref="rest.json"),
    )
    (session,) = read_sessions(path.parent)
    assert endings(session) == ["tool", "human"]


def test_call_without_a_recorded_result_ends_by_tool(read: Any) -> None:
    (session,) = read(step("user", 0), agent(5, 640, "bash", observation=None), agent(9, 700))
    assert session.turns[1].trigger == "tool_result"


def test_sidechain_steps_are_separate_sessions(read: Any) -> None:
    side: dict[str, Any] = {"extra": {"is_sidechain": True}}
    main, first, second = read(
        step("user", 6, **side),
        agent(7, 320, "Grep", **side),
        agent(9, 400, **side),
        step("user", 20, **side),
        agent(22, 330, **side),
        step("user", 0),
        agent(5, 700, "Task"),
        agent(15, 800, "Task"),
        agent(30, 900),
    )
    assert (prompts(main), prompts(first), prompts(second)) == (
        [700, 800, 900],
        [320, 400],
        [330],
    )
    assert [(one.parent_id, one.parent_turn, one.join_turn) for one in (first, second)] == [
        ("s", 0, 1),
        ("s", 1, 2),
    ]


def test_text_and_one_text_part_are_the_same_message(write_lines: Any) -> None:
    said = "x" * 4000
    for name, message in (("a", said), ("b", [{"type": "text", "text": said}])):
        path = write_lines(
            f"{name}.json",
            trajectory(step("system", 0, message=message), agent(2, 1000), session_id=name),
        )
    one, two = read_sessions(path.parent)
    assert one.turns[0].block_ids == two.turns[0].block_ids


@pytest.mark.parametrize(
    ("usages", "expected"),
    [
        ([(100, 60, 30), (200, 100, 90)], [100, 200]),
        ([(100, 100, 30), (200, 110, 40)], [130, 240]),
        ([(2, 0, 100), (5, 100, 10), (3, 110, 0)], [102, 115, 113]),
        ([(None, 50, 10), (40, None, 0)], [None, 40]),
    ],
    ids=["whole", "without-writes", "without-both", "unknown"],
)
def test_prompt_is_read_written_and_uncached_tokens(
    usages: list[tuple[int | None, int | None, int]], expected: list[int | None]
) -> None:
    assert whole_prompts(CacheUsage(*usage) for usage in usages) == expected
