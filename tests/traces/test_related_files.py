"""Trees of related files."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from holdfast.traces.formats.reading import FileLinks
from holdfast.traces.related_files import RelatedFiles


def related(*links: FileLinks) -> RelatedFiles:
    """Files named by their position and link name."""
    return RelatedFiles({Path(f"{number}-{one.name}"): one for number, one in enumerate(links)})


def test_file_read_with_parent_it_names() -> None:
    found = related(FileLinks("child", "parent"), FileLinks("parent"), FileLinks("other"))
    assert found.is_child(Path("0-child"))
    assert not found.is_child(Path("1-parent"))
    assert found.descendants(Path("1-parent")) == (Path("0-child"),)
    assert found.descendants(Path("2-other")) == ()


def test_file_read_with_parent_that_names_it() -> None:
    found = related(FileLinks("child"), FileLinks("parent", children=("child", "gone")))
    assert found.descendants(Path("1-parent")) == (Path("0-child"),)


def test_file_with_missing_parent_is_root() -> None:
    assert not related(FileLinks("child", "gone")).is_child(Path("0-child"))


def test_descendants_in_depth_first_order() -> None:
    found = related(FileLinks("a"), FileLinks("b", "a"), FileLinks("c", "a"), FileLinks("d", "b"))
    assert [path.name for path in found.descendants(Path("0-a"))] == ["1-b", "3-d", "2-c"]


def test_second_file_of_one_name_is_a_root() -> None:
    found = related(
        FileLinks("a"),
        FileLinks("b", "a"),
        FileLinks("b", "a"),
        FileLinks("a"),
        FileLinks("c", "b"),
    )
    assert [path.name for path in found.descendants(Path("0-a"))] == ["1-b", "4-c"]
    assert not found.is_child(Path("2-b"))
    assert not found.is_child(Path("3-a"))


@given(
    st.dictionaries(
        st.integers(0, 9).map(lambda number: Path(f"{number}")),
        st.builds(
            FileLinks,
            name=st.sampled_from("abcdef"),
            parent=st.none() | st.sampled_from("abcdefg"),
            children=st.lists(st.sampled_from("abcdefg"), max_size=3).map(tuple),
        ),
    )
)
def test_every_file_read_once_for_any_links(
    links: dict[Path, FileLinks],
) -> None:
    found = RelatedFiles(links)
    read = [
        one
        for path in links
        if not found.is_child(path)
        for one in (path, *found.descendants(path))
    ]
    assert sorted(read) == sorted(links)
