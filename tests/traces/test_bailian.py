"""Reader of Bailian's conversations."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session, SessionEvent, common_prefix_length


def request(chat: int, parent: int = -1, at_s: float = 0.0, **fields: Any) -> dict[str, Any]:
    return {
        "chat_id": chat,
        "parent_chat_id": parent,
        "timestamp": at_s,
        "input_length": 40,
        "output_length": 7,
        "type": "text",
        "turn": 1,
        "hash_ids": [1, 2, 3],
    } | fields


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(*requests: dict[str, Any], **options: Any) -> list[Session]:
        return list(read_sessions(write_lines("b.jsonl", *requests), **options))

    return build


def test_requests_that_continue_each_other_are_one_session(read: Any) -> None:
    one, other = read(
        request(1, at_s=2.0),
        request(2, at_s=3.0),
        request(3, parent=1, at_s=12.5, input_length=64, hash_ids=[1, 2, 4, 5]),
    )
    assert (one.session_id, one.start_s, other.start_s) == ("b-1", 2.0, 3.0)
    first, second = one.turns
    assert (first.prompt_tokens, first.output_tokens, second.gap_s) == (40, 7, 10.5)
    assert common_prefix_length(first.block_ids, second.block_ids) == 2
    assert one.block_size_tokens == 16


def test_hash_of_a_partial_last_block_is_dropped(read: Any) -> None:
    (session,) = read(request(1))
    assert len(session.turns[0].block_ids) == 2


def test_request_continuing_an_earlier_one_is_a_fork(read: Any) -> None:
    (session,) = read(request(1), request(2, parent=1, at_s=1.0), request(3, parent=1, at_s=2.0))
    assert session.events == (SessionEvent("fork", 2),)


def test_request_with_a_missing_parent_begins_a_session(read: Any) -> None:
    assert len(read(request(1), request(3, parent=2))) == 2


def test_a_request_before_its_parent_is_of_the_same_session(read: Any) -> None:
    rows = [request(1, at_s=1.0), request(2, parent=1, at_s=2.0), request(3, parent=2, at_s=3.0)]
    for order in itertools.permutations(rows):
        (session,) = read(*order)
        assert (session.session_id, len(session.turns), session.events) == ("b-1", 3, ())


def test_requests_with_circular_parents_are_one_session(read: Any) -> None:
    (session,) = read(request(1, parent=2), request(2, parent=1), request(3, parent=3, at_s=1.0))[
        :1
    ]
    assert len(session.turns) == 2


def test_all_gaps_are_reported_as_estimates(read: Any) -> None:
    reports: list[FileReport] = []
    read(request(1), request(2, parent=1), on_file=reports.append)
    assert reports[0].num_estimated_gaps == 1


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (request(1), "line 2, chat_id: a second request 1"),
        (request(2, hash_ids=[1] * 4), "line 2, hash_ids: 4 blocks .* at most 3"),
        (request(2, at_s=-1.0), "line 2, timestamp: Expected `float` >= 0"),
    ],
)
def test_a_bad_line_is_an_error_that_names_line_and_field(
    read: Any, second: dict[str, Any], message: str
) -> None:
    with pytest.raises(TraceError, match=rf"b\.jsonl: {message}"):
        read(request(1), second)
