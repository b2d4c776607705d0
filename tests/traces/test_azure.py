"""The reader of Azure's arrivals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import TraceError
from holdfast.traces.io import read_sessions
from holdfast.traces.record import Session

_HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens"


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def build(*rows: str, head: str = _HEAD, **options: Any) -> list[Session]:
        path = tmp_path / "a.csv"
        path.write_text("\n".join([head, *rows]))
        return list(read_sessions(path, **options))

    return build


def test_a_row_is_a_session_of_one_turn_that_arrives_when_recorded(read: Any) -> None:
    first, second = read("2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 18:17:05.4799600,64,1")
    assert (first.start_s, second.start_s) == (0.0, 1.5)
    (turn,) = first.turns
    assert (turn.prompt_tokens, turn.output_tokens, len(turn.block_ids)) == (4808, 10, 75)


def test_a_time_zone_is_read(read: Any) -> None:
    first, second = read(
        "2024-05-10 00:00:00.009930+00:00,64,1", "2024-05-10 02:00:01.009930+02:00,64,1"
    )
    assert (first.start_s, second.start_s) == (0.0, 1.0)


def test_nothing_is_shared(read: Any) -> None:
    one, other = read("2023-11-16 18:17:03,640,1", "2023-11-16 18:17:04,640,1")
    assert not set(one.turns[0].block_ids) & set(other.turns[0].block_ids)


def test_columns_are_found_by_name_behind_a_byte_order_mark(read: Any) -> None:
    (session,) = read(
        "7,2023-11-16 18:17:03,70", head="\ufeffGeneratedTokens,TIMESTAMP,ContextTokens"
    )
    assert (session.turns[0].prompt_tokens, session.turns[0].output_tokens) == (70, 7)


def test_a_seed_chooses_the_arrival_to_begin_with(read: Any) -> None:
    rows = [f"2023-11-16 18:17:{second:02d},64,1" for second in range(20)]
    starts_s = [session.start_s for session in read(*rows, seed=1)]
    assert starts_s[0] != 0.0
    assert starts_s == [starts_s[0] + n for n in range(20)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("soon,64,1", "line 3, TIMESTAMP: 'soon'; expected a time such as"),
        ("2023-11-16 18:17:03,x,1", "line 3, ContextTokens: Expected `int`, got `str`"),
        ("2023-11-16 18:17:03,0,1", "line 3, ContextTokens: Expected `int` >= 1"),
        ("2023-11-16 18:17:03", "line 3: Object missing required field `ContextTokens`"),
    ],
)
def test_a_bad_row_is_an_error_that_names_line_and_column(
    read: Any, row: str, message: str
) -> None:
    with pytest.raises(TraceError, match=rf"a\.csv: {message}"):
        read("2023-11-16 18:17:03,64,1", row)


def test_another_table_is_an_error_that_names_the_columns(read: Any) -> None:
    with pytest.raises(TraceError, match="line 1: unknown layout with the fields a, b") as caught:
        read("1,2", head="a,b")
    assert "Azure, which comes closest, also has ContextTokens" in (caught.value.hint or "")
