"""All readers of formats with text: they keep none of it and survive any input."""

from __future__ import annotations

import contextlib
import copy
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.traces.text_samples import SECRET, TEXT_SAMPLES, written

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions

FORMATS = pytest.mark.parametrize("sample", TEXT_SAMPLES)


def read(
    sample: str,
    data: bytes,
    reports: list[FileReport] | None = None,
    *,
    keeps_text: bool = False,
) -> list[Any]:
    """Read a file; check that errors name it and do not quote its text."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"a.{TEXT_SAMPLES[sample][0]}"
        path.write_bytes(data)
        try:
            on_file = None if reports is None else reports.append
            return list(read_sessions(path, on_file=on_file, keeps_text=keeps_text))
        except TraceError as error:
            assert SECRET not in f"{error} {error.hint}"
            assert error.source == str(path)
            raise


@FORMATS
def test_sessions_hold_no_text(sample: str) -> None:
    reports: list[FileReport] = []
    sessions = read(sample, written(TEXT_SAMPLES[sample][1]()), reports)
    assert sessions
    assert any(turn.ended_by == "tool" for session in sessions for turn in session.turns) or (
        sample == "OpenTelemetry lines"
    )
    assert SECRET.casefold() not in f"{sessions} {reports}".casefold()


@FORMATS
def test_equal_ids_mean_equal_prefixes(assert_prefix_identity: Any, sample: str) -> None:
    assert_prefix_identity(read(sample, written(TEXT_SAMPLES[sample][1]())))


@FORMATS
def test_lengths_do_not_depend_on_the_words(sample: str) -> None:
    one = read(sample, written(TEXT_SAMPLES[sample][1]()))
    other = read(sample, written(TEXT_SAMPLES[sample][1]()).replace(SECRET.encode(), b"Plugh"))
    for left, right in zip(one, other, strict=True):
        for before, after in zip(left.turns, right.turns, strict=True):
            assert before.prompt_tokens == after.prompt_tokens


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(child, (*path, key))


WRONG = [
    None,
    True,
    -1,
    1.5,
    1e300,
    10**30,
    1 << 63,
    "",
    SECRET,
    "\u0000",
    [],
    {},
    [SECRET],
    {"key": SECRET},
    "2026-01-05",
    "0001-01-01T00:00:00+12:00",
    "9999-12-31T23:59:59-12:00",
]


@FORMATS
@settings(deadline=None)
@given(seed=st.integers(0, 1 << 32), num_changes=st.integers(1, 3))
def test_wrong_values_anywhere_are_read_or_an_error(
    sample: str, seed: int, num_changes: int
) -> None:
    rng = random.Random(seed)
    values = copy.deepcopy(TEXT_SAMPLES[sample][1]())
    for _ in range(num_changes):
        path = rng.choice([path for path in places(values) if path] or [(0,)])
        at: Any = values
        for key in path[:-1]:
            at = at[key]
        if rng.random() < 0.2 and len(path) > 1:
            del at[path[-1]]
        else:
            at[path[-1]] = copy.deepcopy(rng.choice(WRONG))
    with contextlib.suppress(TraceError):
        read(sample, written(values), keeps_text=rng.random() < 0.5)


@FORMATS
@settings(deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_lines_in_any_order_and_number_are_read_or_an_error(sample: str, seed: int) -> None:
    rng = random.Random(seed)
    values = rng.choices(TEXT_SAMPLES[sample][1](), k=rng.randrange(12))
    with contextlib.suppress(TraceError):
        read(sample, written(values))


@FORMATS
@settings(deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_damaged_bytes_are_read_or_an_error(sample: str, seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(written(TEXT_SAMPLES[sample][1]()))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data))
        noise = rng.choice([b"\xff", b"\x00", b"NaN", b"-Infinity", b"\\ud800", b'"', b"{", b"]"])
        data[at : at + len(noise)] = noise
    with contextlib.suppress(TraceError):
        cut = data[: rng.randrange(len(data) + 1)] if rng.random() < 0.5 else data
        read(sample, bytes(cut), keeps_text=rng.random() < 0.5)


@FORMATS
@pytest.mark.parametrize("depth", [100, 200, 300, 490, 900, 100_000])
@pytest.mark.parametrize(
    "opening",
    [b"[", b'{"parts":[', b'{"kvlistValue":{"values":[{"key":"a","value":'],
    ids=["list", "parts", "values"],
)
def test_deep_nesting_is_read_or_an_error(sample: str, depth: int, opening: bytes) -> None:
    closing = opening[::-1].translate(bytes.maketrans(b"[{", b"]}"))
    closing = bytes(byte for byte in closing if byte in b"]}")
    nested = opening * depth + b"null" + closing * depth
    data = written(TEXT_SAMPLES[sample][1]())
    for quoted in (f'"{SECRET}"'.encode(), f'{{"stringValue":"{SECRET}"}}'.encode()):
        with contextlib.suppress(TraceError):
            read(sample, data.replace(quoted, nested, 1))
