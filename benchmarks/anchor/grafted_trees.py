"""Agent trees made of single streams, where recorded trees are not at hand."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from holdfast.traces.record import Session, Turn

__all__ = ["graft", "interleave"]

# Requests by the number of others that they wait for, in AgentX's 393 trees: step 24,
# results/baseline-60m/c12/bench-stdout.log, "Replay interval barriers". There are 9,602 streams
# with 68,266 turns; the twelve trees that are listed there have main streams of 31 turns, which
# leaves six for each of the others.
JOIN_WIDTHS: Final = dict(
    enumerate((26371, 5215, 1416, 473, 151, 80, 62, 91, 72, 51, 20, 9, 2, 2), start=1)
)
SUB_AGENT_TURNS: Final = 6

# Made up: which pauses are calls.
SHORTEST_CALL_S: Final = 30.0


def graft(
    sessions: Sequence[Session], seed: int, widths: Mapping[int, float] = JOIN_WIDTHS
) -> tuple[Session, ...]:
    """Let sub-agents run in the long pauses of each session, at once. Pure.

    Every pause of 30 s or more that ended with a tool's result becomes a call of sub-agents, and
    the turn after it waits for them instead. A sub-agent runs the first turns of another session,
    so it shares as much of its parent's prompt as those two sessions share.

    Args:
        sessions: Single streams; the order is kept, each followed by its sub-agents.
        seed: Draws how many sub-agents a pause has, and what they run.
        widths: Weights of numbers of sub-agents.
    """
    drawn = random.Random(seed)
    grafted: list[Session] = []
    for session in sessions:
        grafted.append(session)
        number = 0
        for index, called in _calls(session, sessions, drawn, widths):
            for turns in called:
                number += 1
                sub_agent = replace(
                    session,
                    session_id=f"{session.session_id}/{number}",
                    turns=turns,
                    parent_id=session.session_id,
                    parent_turn=index - 1,
                    join_turn=index,
                    agent="sub-agent",
                    events=(),
                )
                grafted.append(sub_agent)
    return tuple(grafted)


def interleave(sessions: Sequence[Session], seed: int) -> tuple[Session, ...]:
    """Let each session send its sub-agents' turns itself, one after the other. Pure.

    As `graft` for a client that keeps one request of a session in flight: the sub-agents' turns
    take the place of the pause.
    """
    drawn = random.Random(seed)
    interleaved = []
    for session in sessions:
        turns: list[Turn] = []
        calls = dict(_calls(session, sessions, drawn, JOIN_WIDTHS))
        for index, turn in enumerate(session.turns):
            called = calls.get(index, ())
            turns += (each for of_one in called for each in of_one)
            turns.append(replace(turn, gap_s=0.0) if called else turn)
        interleaved.append(replace(session, turns=tuple(turns), events=()))
    return tuple(interleaved)


def _calls(
    parent: Session,
    others: Sequence[Session],
    drawn: random.Random,
    widths: Mapping[int, float],
) -> Iterator[tuple[int, list[tuple[Turn, ...]]]]:
    """Turns that wait for sub-agents, each with the turns of those."""
    numbers, weights = list(widths), list(widths.values())
    for index, turn in enumerate(parent.turns):
        if index and turn.trigger == "tool_result" and turn.gap_s >= SHORTEST_CALL_S:
            width = drawn.choices(numbers, weights)[0]
            yield index, [drawn.choice(others).turns[:SUB_AGENT_TURNS] for _ in range(width)]
