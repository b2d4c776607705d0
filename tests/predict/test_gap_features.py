"""Features of pauses, from the ends of turns."""

from __future__ import annotations

import pytest

from holdfast.predict.features import GapFeatures, features_of
from holdfast.tool_calls.turn_end import ToolCall, TurnEnd, turn_end_of

BASH = ToolCall("Bash", '{"command": "git status"}')


@pytest.mark.parametrize(
    ("end", "features"),
    [
        (None, GapFeatures("unknown")),
        (TurnEnd("unknown"), GapFeatures("unknown")),
        (TurnEnd("human"), GapFeatures("human")),
        (TurnEnd("tool"), GapFeatures("other")),
        (turn_end_of((BASH,)), GapFeatures("shell", "Bash", "git status")),
        (turn_end_of((ToolCall("Read"),)), GapFeatures("read", "Read")),
        (turn_end_of((ToolCall("AskUserQuestion"),)), GapFeatures("human", "AskUserQuestion")),
    ],
)
def test_features_follow_from_the_turn_end(end: TurnEnd | None, features: GapFeatures) -> None:
    assert features_of(end) == features


def test_slowest_kind_of_parallel_calls_counts() -> None:
    calls = (ToolCall("Task"), BASH, ToolCall("Read"))
    assert features_of(turn_end_of(calls)) == GapFeatures("sub_agent", "Task")


def test_last_of_equally_slow_calls_counts() -> None:
    calls = (ToolCall("Bash", '{"command": "ls"}'), BASH)
    assert features_of(turn_end_of(calls)).argument_class == "git status"
