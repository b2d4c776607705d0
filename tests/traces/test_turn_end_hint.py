"""What a recorded turn's ending says to an engine."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.core.hints import parse_hints
from holdfast.predict.features import GapFeatures, features_of
from holdfast.traces.record import Turn
from holdfast.traces.turn_end_hint import turn_end_hint


def _turn(**ending: Any) -> Turn:
    return Turn(gap_s=0.0, prompt_tokens=8, output_tokens=1, block_ids=(), **ending)


@pytest.mark.parametrize(
    ("ending", "hint"),
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
def test_the_hint_says_what_was_recorded(ending: dict[str, Any], hint: str | None) -> None:
    assert turn_end_hint(_turn(**ending)) == hint


@pytest.mark.parametrize("command", ["git fetch", "pytest", "npm run", "pytest &", "&"])
def test_an_engine_reads_the_class_of_the_command_out_of_the_hint(command: str) -> None:
    turn = _turn(ended_by="tool", tool_name="Bash", tool_command=command)
    hints, rejected = parse_hints({"holdfast_turn_end": turn_end_hint(turn)}, None)
    assert rejected == ()
    assert features_of(hints.turn_end) == GapFeatures("shell", "Bash", command)
