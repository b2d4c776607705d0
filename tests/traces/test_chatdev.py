"""Reader of ChatDev's role hand-offs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import TraceError
from holdfast.traces.formats.chatdev import read_chatdev
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Session, common_prefix_length


def call(index: int = 0, prompt: int = 400, **fields: Any) -> dict[str, Any]:
    return {
        "s": "p1",
        "i": index,
        "phase": "Review",
        "pair": ["Reviewer", "Programmer"],
        "t_send": 100.0 * index,
        "t_recv": 100.0 * index + 30,
        "in": prompt,
        "out": 7,
        "role": "Reviewer",
    } | fields


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(*calls: dict[str, Any]) -> list[Session]:
        return list(read_sessions(write_lines("requests.jsonl", *calls)))

    return build


def agents(session: Session) -> list[str]:
    return [turn.agent for turn in session.turns]


def test_a_project_is_a_session_and_a_call_a_turn(read: Any) -> None:
    first, second = read(call(), call(s="p2"), call(1, prompt=500, gap=3.0))
    assert (first.session_id, len(first.turns)) == ("p1", 2)
    assert (second.session_id, len(second.turns)) == ("p2", 1)
    turn = first.turns[1]
    assert (turn.prompt_tokens, turn.output_tokens, turn.gap_s) == (500, 7, 3.0)


def test_single_call_has_the_first_role_of_its_pair(read: Any) -> None:
    (session,) = read(call(), call(1))
    assert agents(session) == ["Reviewer", "Reviewer"]


def test_second_call_of_an_exchange_has_the_other_role(read: Any) -> None:
    (session,) = read(call(role=None), call(1), call(2, role=None), call(3))
    assert agents(session) == ["Reviewer", "Programmer", "Reviewer", "Programmer"]


def test_an_exchange_has_no_third_call(read: Any) -> None:
    (session,) = read(call(role=None), call(1, role=None), call(2))
    assert agents(session) == ["Reviewer", "Programmer", "Reviewer"]


def test_an_exchange_ends_with_its_phase(read: Any) -> None:
    (session,) = read(call(role=None), call(1, phase="Manual"))
    assert agents(session) == ["Reviewer", "Reviewer"]


def test_prompts_of_one_role_share_only_its_system_message(read: Any) -> None:
    (session,) = read(call(), call(1))
    first, second = (turn.block_ids for turn in session.turns)
    assert common_prefix_length(first, second) == 144 // session.block_size_tokens
    assert len(set(first) & set(second)) == 144 // session.block_size_tokens


def test_roles_and_projects_share_nothing(read: Any) -> None:
    one, other = read(call(role=None), call(1), call(s="p2"))
    reviewer, programmer = (set(turn.block_ids) for turn in one.turns)
    assert not reviewer & programmer
    assert not (reviewer | programmer) & set(other.turns[0].block_ids)


def test_prompt_shorter_than_the_system_message_has_own_blocks(read: Any) -> None:
    (session,) = read(call(prompt=40))
    assert len(session.turns[0].block_ids) == 2


@pytest.mark.parametrize(
    ("fields", "gap_s"),
    [({"gap": 4.0}, 4.0), ({}, 70.0), ({"t_send": 10.0}, 0.0), ({"t_send": None}, 0.0)],
    ids=["recorded", "timestamps", "before-the-answer", "not-known"],
)
def test_gap_is_recorded_or_from_timestamps_or_0(read: Any, fields: Any, gap_s: float) -> None:
    (session,) = read(call(), call(1, **fields))
    assert session.turns[1].gap_s == gap_s


def test_gaps_that_are_not_recorded_are_counted(write_lines: Any) -> None:
    path = write_lines("requests.jsonl", call(), call(1), call(2, gap=1.0))
    reports: list[FileReport] = []
    list(read_sessions(path, on_file=reports.append))
    assert reports[0].num_estimated_gaps == 1


def test_turn_end_is_unknown(read: Any) -> None:
    (session,) = read(call())
    assert session.turns[0].ended_by == "unknown"


def test_a_seed_decides_the_order_of_projects(write_lines: Any) -> None:
    path = write_lines("requests.jsonl", *(call(s=f"p{n}") for n in range(20)))

    def order(seed: int | None) -> list[str]:
        return [session.session_id for session in read_sessions(path, seed=seed)]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(None) == [f"p{n}" for n in range(20)]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (call(2), "line 2, i: call 2 of project 'p1'; expected 1"),
        (call(1, pair=["Reviewer"]), "line 2, pair: Expected `array` of length 2"),
        (call(1, out=-1), "line 2, out: Expected `int` >= 0"),
        ({"s": "p1", "i": 1}, "line 2: Object missing required field `phase`"),
    ],
    ids=["order", "pair", "range", "missing"],
)
def test_a_bad_line_is_an_error_that_names_line_and_field(
    read: Any, second: dict[str, Any], message: str
) -> None:
    with pytest.raises(TraceError, match=message):
        read(call(), second)


@given(
    st.lists(
        st.tuples(st.sampled_from(["p1", "p2"]), st.integers(1, 300), st.booleans(), st.booleans()),
        min_size=1,
        max_size=30,
    )
)
def test_equal_ids_mean_equal_prefixes(assert_prefix_identity: Any, rows: Any) -> None:
    lengths: dict[str, int] = {}
    lines = []
    for project, prompt, opens, is_turned in rows:
        index = lengths.get(project, 0)
        lengths[project] = index + 1
        pair = ["Programmer", "Reviewer"] if is_turned else ["Reviewer", "Programmer"]
        role = None if opens else pair[0]
        lines.append(call(index, prompt, s=project, pair=pair, role=role))
    file = TraceFile("test", b"\n".join(map(msgspec.json.encode, lines)))
    assert_prefix_identity(read_chatdev(file, interner=PrefixInterner(), scope=1).sessions)
