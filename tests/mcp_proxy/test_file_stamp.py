"""A stamp changes with every file that a call names, and only then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.mcp_proxy.file_stamp import stamp_files


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "src" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "deep" / "a.py").write_text("one")
    (tmp_path / "b.txt").write_text("b")
    return tmp_path


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda tree: (tree / "src/deep/a.py").write_text("two"),
    "new file": lambda tree: (tree / "src/deep/new").write_text(""),
    "removed": lambda tree: (tree / "src/deep/a.py").unlink(),
    "mode": lambda tree: (tree / "src/deep/a.py").chmod(0o600),
    "replaced": lambda tree: (tree / "b.txt").replace(tree / "src/deep/a.py"),
}
OF_ONE_FILE = CHANGES.keys() - {"new file"}


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        *((name, "src") for name in CHANGES),
        *((name, "src/deep/a.py") for name in sorted(OF_ONE_FILE)),
    ],
)
def test_change_is_seen(tree: Path, name: str, argument: str) -> None:
    before = stamp_files({"path": argument}, tree)
    CHANGES[name](tree)
    assert before is not None
    assert stamp_files({"path": argument}, tree) != before


def test_unchanged_files_have_one_stamp(tree: Path) -> None:
    before = stamp_files({"path": "src"}, tree)
    (tree / "b.txt").write_text("elsewhere")
    assert before == stamp_files({"path": "src"}, tree)


@pytest.mark.parametrize(
    "arguments",
    [
        {"paths": ["b.txt", "src"]},
        {"at": {"uri": "file://{tree}/b.txt"}},
        {"path": "{tree}/b.txt"},
        "b.txt",
    ],
)
def test_files_are_found_wherever_they_are_named(tree: Path, arguments: object) -> None:
    def fill(value: object) -> object:
        match value:
            case str():
                return value.replace("{tree}", str(tree))
            case list():
                return [fill(each) for each in value]
            case dict():
                return {key: fill(each) for key, each in value.items()}
        return value

    before = stamp_files(fill(arguments), tree)
    assert before is not None
    assert before.num_files
    (tree / "b.txt").write_text("changed")
    assert stamp_files(fill(arguments), tree) != before


def test_name_that_becomes_a_file_is_seen(tree: Path) -> None:
    before = stamp_files({"path": "later.txt"}, tree)
    assert before is not None
    assert before.num_files == 0
    (tree / "later.txt").write_text("")
    assert stamp_files({"path": "later.txt"}, tree) != before


def test_too_many_files_have_no_stamp(tree: Path) -> None:
    many = tree / "many"
    many.mkdir()
    for number in range(4_100):
        (many / str(number)).touch()
    assert stamp_files({"path": "many"}, tree) is None


@pytest.mark.parametrize("value", [None, 3, "", "nul\0", "two\nlines", "x" * 5_000, "a/" * 2_000])
def test_odd_values_name_no_file(tree: Path, value: object) -> None:
    found = stamp_files({"value": value}, tree)
    assert found is None or found.num_files == 0


def test_links_in_a_circle_end(tree: Path) -> None:
    (tree / "src" / "loop").symlink_to(tree / "src")
    (tree / "src" / "dangling").symlink_to(tree / "nowhere")
    assert stamp_files({"path": "src"}, tree) is not None
