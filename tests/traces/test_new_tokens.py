"""New tokens of prompts, against naive searches."""

from __future__ import annotations

from hypothesis import given
from tests.workload.study.naive import sessions_like_agents, shared_blocks

from holdfast.traces.new_tokens import NewTokens, kept_blocks
from holdfast.traces.record import Session, Turn


@given(sessions_like_agents())
def test_sent_and_kept_blocks_equal_naive_search(sessions: list[Session]) -> None:
    new_tokens = NewTokens()
    earlier: list[tuple[int, ...]] = []
    for session in sessions:
        own: list[tuple[int, ...]] = []
        for index, turn in enumerate(session.turns):
            ids = turn.block_ids
            sent = max((shared_blocks(ids, past) for past in earlier), default=0)
            assert new_tokens.note_sent(session, index) == sent
            kept = max((shared_blocks(ids, past) for past in own), default=0)
            assert kept_blocks(session, index) == kept
            earlier.append(ids)
            own.append(ids)


def test_kept_blocks_look_back_a_bounded_number_of_turns() -> None:
    first = Turn(0.0, 20, 1, (1, 2))
    others = tuple(Turn(0.0, 10, 1, (10 + index,)) for index in range(40))
    session = Session("a", 10, (first, *others[:31], first, *others[31:], first), "test")
    assert kept_blocks(session, 32) == 2
    assert kept_blocks(Session("b", 10, (first, *others, first), "test"), 41) == 0
