"""The hint of a recorded turn's end."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.core.hints import parse_hints
from holdfast.predict.features import GapFeatures, features_of
from holdfast.traces.record import Turn
from holdfast.traces.turn_end_hint import turn_end_hint


def _turn(**turn_end: Any) -> Turn:
    return Turn(gap_s=0.0, prompt_tokens=8, output_tokens=1, block_ids=(), **turn_end)


@pytest.mark.parametrize(
    ("turn_end", "hint"),
    [
        ({"ended_by": "human"}, "human"),
        ({"ended_by": "tool"}, "tool"),
        ({"ended_by": "tool", "tool_name": "Read"}, "tool:Read"),
        (
            {"ended_by": "tool", "tool_name": "Bash", "tool_command": "git fetch"},
            "tool:Bash git fetch",
        ),
        ({"ended_by": "unknown", "tool_name": "Read"}, None),
    ],
)
def test_hint_of_each_recorded_turn_end(turn_end: dict[str, Any], hint: str | None) -> None:
    assert turn_end_hint(_turn(**turn_end)) == hint


@pytest.mark.parametrize("command", ["git fetch", "pytest", "npm run", "pytest &", "&"])
def test_hint_parses_to_tool_and_command(command: str) -> None:
    turn = _turn(ended_by="tool", tool_name="Bash", tool_command=command)
    hints, notes = parse_hints({"holdfast_turn_end": turn_end_hint(turn)}, None)
    assert [note.outcome for note in notes] == ["accepted"]
    assert features_of(hints.turn_end) == GapFeatures("shell", "Bash", command)
