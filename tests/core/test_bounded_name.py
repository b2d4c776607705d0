"""Names that clients choose, kept in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.bounded_name import MAX_NAME_CHARS, bounded_name

LONG = st.integers(250, 300).map(lambda n: "n" * n) | st.text(min_size=250)


def test_short_names_are_unchanged() -> None:
    for name in ("", "s-1", "x" * MAX_NAME_CHARS):
        assert bounded_name(name) == name


def test_lone_surrogates_are_accepted() -> None:
    assert len(bounded_name("\ud800" * 300)) <= MAX_NAME_CHARS


@given(LONG, LONG)
def test_different_names_stay_different_and_short(one: str, other: str) -> None:
    assert (bounded_name(one) == bounded_name(other)) == (one == other)
    assert len(bounded_name(one)) <= MAX_NAME_CHARS
