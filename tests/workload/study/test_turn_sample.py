"""The turns that a study keeps for planning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ConfigError
from holdfast.sim.turn_mix import TurnMix
from holdfast.traces.record import Session, Turn
from holdfast.workload.study.turn_sample import COLUMNS, TurnSample, TurnSampleMeter
from holdfast.workload.synthetic import generate_sessions

BLOCK = 100


def sample_of(*sessions: Session, most: int | None = None) -> TurnSample:
    meter = TurnSampleMeter()
    for session in sessions:
        meter.add(session)
    return meter.result(most)


def test_columns_have_what_each_turn_keeps() -> None:
    turns = Turn(9.0, 250, 0, (1, 2)), Turn(3.5, 300, 7, (1, 2, 3)), Turn(4.0, 100, 7, (8,))
    sample = sample_of(Session("a", BLOCK, turns, "test"))
    assert sample.kept_tokens == "0 200 0" and sample.gap_ms == "0 3500 4000"
    assert sample.output_tokens == "1 7 7" and sample.peak_tokens == "307 307 307"
    assert (sample.num_sessions, sample.num_turns, sample.shared_head_tokens) == (1, 3, 0.0)


def test_shared_heads_are_those_of_earlier_first_prompts() -> None:
    first, second = Turn(0.0, 300, 1, (1, 2, 3)), Turn(0.0, 300, 1, (1, 2, 9))
    later = Turn(0.0, 300, 1, (1, 2, 3))
    sample = sample_of(
        Session("a", BLOCK, (first,), "test"), Session("b", BLOCK, (second, later), "test")
    )
    assert sample.shared_head_tokens == (0 + 200) / 2


def test_block_ids_of_other_readings_are_others() -> None:
    meter = TurnSampleMeter()
    for reading in (0, 1):
        meter.add(Session("a", BLOCK, (Turn(0.0, 300, 1, (1, 2, 3)),), "test"), reading)
    assert meter.result().shared_head_tokens == 0.0


@given(st.integers(1, 400))
def test_a_thinned_sample_keeps_pauses_and_lengths(most: int) -> None:
    sessions = generate_sessions(6, 3)
    whole, thinned = sample_of(*sessions), sample_of(*sessions, most=most)
    num_turns = min(most, whole.num_turns)
    assert {len(thinned.column(name)) for name in COLUMNS} == {num_turns}
    assert thinned.num_turns == whole.num_turns and thinned.num_sessions == whole.num_sessions
    assert thinned.column("session").tolist() == sorted(thinned.column("session").tolist())
    gaps = whole.column("gap_ms")
    for share in (0.25, 0.5, 0.75):
        rank = (gaps <= np.quantile(thinned.column("gap_ms"), share)).mean()
        assert rank >= share - 2.0 / num_turns


def test_a_mix_cuts_gaps_and_leaves_out_what_outgrows() -> None:
    small = [Session(f"s{n}", BLOCK, (Turn(0.0, 200, 1, (n,)), Turn(90.0, 250, 1, (n,))), "test")
             for n in range(2)]  # fmt: skip
    huge = Session("huge", BLOCK, (Turn(0.0, 5000, 1, ()),), "test")
    mix = TurnMix.of_sample(sample_of(small[0], huge, small[1]), 1000, gap_cap_s=30.0)
    assert mix.gap_s.tolist() == [0, 30, 0, 30] and mix.session.tolist() == [0, 0, 1, 1]
    assert mix.num_outgrown == 1
    with pytest.raises(ConfigError, match="0 sessions fit 10 KV tokens, 3 outgrow"):
        TurnMix.of_sample(sample_of(small[0], huge, small[1]), 10)
