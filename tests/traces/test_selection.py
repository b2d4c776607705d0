"""Selection of sessions, and cuts of their gaps and turns."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from holdfast.errors import ConfigError
from holdfast.traces.record import Turn
from holdfast.traces.scaling import TokenScale
from holdfast.traces.selection import SessionSelection
from holdfast.workload.synthetic import generate_sessions, iterate_sessions


def test_reads_no_more_sessions_than_requested() -> None:
    taken = iter(iterate_sessions(0))
    chosen = SessionSelection(num_sessions=3).select(taken).sessions
    assert chosen == generate_sessions(3, 0)
    assert next(taken).session_id == "synthetic-0-0003"


def test_gap_cap_changes_only_longer_gaps(session: Any) -> None:
    long = session(Turn(0.0, 70, 1, (1,)), Turn(50.0, 80, 1, (1,)), Turn(3.0, 90, 1, (1,)))
    (cut,) = SessionSelection(gap_cap_s=10).select([long]).sessions
    assert [turn.gap_s for turn in cut.turns] == [0.0, 10, 3.0]
    assert [turn.prompt_tokens for turn in cut.turns] == [70, 80, 90]


def test_sessions_cut_to_max_turns_before_length_check(session: Any) -> None:
    long = session(*(Turn(0.0, 70 * (i + 1), 1, (1,)) for i in range(3)))
    selection = SessionSelection(max_turns=2, max_model_len=150)
    (cut,) = selection.select([long]).sessions
    assert [turn.prompt_tokens for turn in cut.turns] == [70, 140]
    with pytest.raises(ConfigError, match="turns is 0"):
        SessionSelection(max_turns=0)


def test_gap_cap_keeps_other_session_fields(session: Any) -> None:
    long = replace(
        session(Turn(0.0, 70, 1, (1,)), Turn(50.0, 80, 1, (1,))),
        start_s=7.0,
        parent_id="b",
        parent_turn=2,
        agent="Explore",
    )
    (cut,) = SessionSelection(gap_cap_s=10).select([long]).sessions
    assert replace(cut, turns=long.turns) == long


def test_sessions_longer_than_context_left_out_and_counted(
    session: Any,
) -> None:
    small = session(Turn(0.0, 128, 64, (1, 2)), session_id="small")
    large = session(Turn(0.0, 256, 64, (1, 2, 3, 4)), session_id="large")
    limits = SessionSelection(max_model_len=6, token_scale=2 / 64)
    selected = limits.select([large, small])
    assert [chosen.session_id for chosen in selected.sessions] == ["small"]
    assert selected.num_outgrown == 1


def test_refuses_when_no_session_fits_the_context(session: Any) -> None:
    with pytest.raises(ConfigError, match="no session is left"):
        SessionSelection(max_model_len=10).select([session(Turn(0.0, 100, 1, (1,)))])


def test_stops_on_endless_source_without_fitting_session(session: Any) -> None:
    endless = (session(Turn(0.0, 100, 1, (1,))) for _ in count())
    with pytest.raises(ConfigError, match="no session is left"):
        SessionSelection(max_model_len=10, num_sessions=1).select(endless)


@pytest.mark.parametrize(
    "wrong",
    [{"num_sessions": 0}, {"gap_cap_s": -1.0}, {"gap_cap_s": float("nan")}, {"max_model_len": 1}],
)
def test_refuses_settings_out_of_range(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="expected"):
        SessionSelection(**wrong)


@pytest.mark.parametrize("factor", [1 / 128, 0.1, 1e-9])
def test_fractional_block_scale_refused_with_valid_choices(factor: float) -> None:
    with pytest.raises(ConfigError, match="whole number") as caught:
        TokenScale.from_factor(factor, trace_block_tokens=64)
    assert caught.value.hint is not None
    suggested = float(caught.value.hint.rpartition(" ")[2])
    assert TokenScale.from_factor(suggested, trace_block_tokens=64).block_tokens >= 1


def test_scaled_lengths_are_at_least_one_token() -> None:
    scale = TokenScale.from_factor(1 / 64, trace_block_tokens=64)
    empty = Turn(0.0, 3, 0, ())
    assert (scale.prompt_tokens(empty), scale.output_tokens(empty)) == (1, 1)
