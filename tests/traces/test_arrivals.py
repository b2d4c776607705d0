"""Open-loop requests in the order of time."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import TraceError
from holdfast.traces.formats.arrivals import Arrival, Arrivals
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.order import rotation

_FILE = TraceFile("a.jsonl", b"")


class Recording:
    """A file that counts its passes."""

    def __init__(self, times: list[float]) -> None:
        self.times = times
        self.num_passes = 0

    def rows(self, _: TraceFile) -> Iterator[Arrival[str]]:
        self.num_passes += 1
        for line, at in enumerate(self.times):
            yield Arrival(at, line, f"row {line}")


@given(st.lists(st.integers(0, 9).map(float), min_size=1, max_size=8), st.none() | st.integers(0))
def test_requests_in_order_of_time_from_the_chosen_one(
    times: list[float], seed: int | None
) -> None:
    arrivals = Arrivals(_FILE, Recording(times).rows, hint="")
    ordered = sorted(range(len(times)), key=times.__getitem__)
    begin = 0 if seed is None else random.Random(seed).randrange(len(times))
    expected = [
        (ordered[position], later)
        for position, later in rotation([times[line] for line in ordered], begin)
    ]
    rotated = arrivals.rotated(None if seed is None else random.Random(seed))
    assert [(arrival.line, later) for arrival, later in rotated] == expected
    assert arrivals.num_rows == len(times)


def test_ordered_file_read_again_only_when_iterated() -> None:
    recording = Recording([1.0, 2.0, 2.0])
    rotated = Arrivals(_FILE, recording.rows, hint="").rotated(None)
    assert recording.num_passes == 1
    next(rotated)
    assert recording.num_passes == 2


def test_file_without_a_request_is_an_error() -> None:
    with pytest.raises(TraceError, match=r"a\.jsonl: holds no request"):
        Arrivals(_FILE, Recording([]).rows, hint="expected one")
