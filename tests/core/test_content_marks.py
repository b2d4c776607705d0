"""Marks of prompts' beginnings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.content_marks import ContentMarks, Origin

HERE, SALTED = Origin(0, "", ""), Origin(0, "", "salt")


def test_a_prompt_of_another_origin_is_found_with_its_length() -> None:
    marks = ContentMarks(100)
    marks.note(range(1_000), HERE)
    found = marks.find([*range(600), *[7] * 400], SALTED)
    assert found is not None and found[0] == HERE
    assert 480 <= found[1] <= 600


def test_a_prompt_of_this_origin_is_not_elsewhere() -> None:
    marks = ContentMarks(100)
    marks.note(range(1_000), HERE)
    marks.note(range(1_000), SALTED)
    assert marks.find(range(1_000), SALTED) is None


def test_the_oldest_marks_are_forgotten() -> None:
    marks = ContentMarks(5)
    for number in range(9):
        marks.note([number] * 200, HERE)
    assert len(marks) == 5
    assert marks.find([0] * 200, SALTED) is None
    assert marks.find([8] * 200, SALTED) is not None


@given(shared=st.integers(0, 2_000), more=st.integers(0, 500))
def test_no_more_is_found_than_is_shared(shared: int, more: int) -> None:
    marks = ContentMarks(1_000)
    marks.note([*range(shared), *[-1] * more], HERE)
    found = marks.find([*range(shared), *[-2] * more], SALTED)
    length = 0 if found is None else found[1]
    assert length <= shared
    assert length >= 0.75 * shared - 64
