"""Files of compacted sessions, and which of them are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("loaded_engine")]


def _written(directory: Path, name: bytes, *, fill: float = 1.0) -> Path:
    import torch

    from holdfast.vllm.compaction.compaction_file import CompactedPrefix, Header, write_prefix

    shape = (2, 1, 4, 32)
    prefix = CompactedPrefix(
        torch.full(shape, fill),
        torch.full(shape, -fill, dtype=torch.bfloat16),
        torch.arange(8, dtype=torch.int32).view(2, 1, 4),
    )
    path = directory / f"{name.hex()}.safetensors"
    write_prefix(path, Header(10, 4, f"salt of {name.hex()}", "knorm", 99, 0.5), prefix)
    return path


def _catalog(directory: Path, max_bytes: int | None = None) -> Any:
    from holdfast.vllm.compaction.catalog import Catalog

    return Catalog(directory, max_bytes)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    from holdfast.vllm.compaction.compaction_file import read_header, read_prefix

    path = _written(tmp_path, b"a", fill=2.0)
    prefix = read_prefix(path)
    assert read_header(path).salt == "salt of 61"
    assert float(prefix.keys.min()) == 2.0 and float(prefix.values.max()) == -2.0
    assert prefix.positions.flatten().tolist() == list(range(8))
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_longest_prefix_found_after_a_restart(tmp_path: Path) -> None:
    for name in (b"a", b"b"):
        _written(tmp_path, name)
    catalog = _catalog(tmp_path)
    assert catalog.deepest([b"a", b"b", b"c"]).key == b"b"
    assert catalog.deepest([b"a", b"x"]).key == b"a"
    assert catalog.deepest([b"x"]) is None
    assert catalog.deepest([b"a"]).num_dropped == 6


def test_awaited_file_found_once_it_is_there(tmp_path: Path) -> None:
    catalog = _catalog(tmp_path)
    catalog.await_file(b"a")
    assert catalog.has(b"a") and len(catalog) == 0
    _written(tmp_path, b"a")
    catalog.look()
    assert (len(catalog), catalog.counts["stored"], catalog.seconds) == (1, 1, 0.5)


def test_file_that_came_too_late_may_be_made_again(tmp_path: Path) -> None:
    catalog = _catalog(tmp_path)
    catalog.await_file(b"a")
    assert catalog.deepest([b"a"]) is None
    assert not catalog.has(b"a")


def test_longest_unused_ones_leave_first(tmp_path: Path) -> None:
    size = _written(tmp_path, b"a").stat().st_size
    catalog = _catalog(tmp_path, 3 * size)
    for name in (b"b", b"c"):
        catalog.await_file(name)
        _written(tmp_path, name)
    assert catalog.deepest([b"a"]).key == b"a"  # used last
    catalog.pin(b"b")
    catalog.await_file(b"d")
    _written(tmp_path, b"d")
    catalog.look()
    assert [catalog.has(name) for name in (b"a", b"b", b"c", b"d")] == [True, True, False, True]
    assert catalog.num_bytes == 3 * size
    assert not catalog.path_of(b"c").exists()
    catalog.unpin(b"b")
    catalog.await_file(b"e")
    _written(tmp_path, b"e")
    catalog.look()
    assert not catalog.has(b"b")


@pytest.mark.parametrize("content", [b"", b"not one of ours", None])
def test_file_that_is_not_whole_is_lost(content: bytes | None, tmp_path: Path) -> None:
    path = _written(tmp_path, b"a")
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    catalog = _catalog(tmp_path)
    assert (len(catalog), catalog.counts["lost"]) == (0, 1)
    assert not path.exists()


def test_changed_content_is_not_loaded(tmp_path: Path) -> None:
    from holdfast.errors import EngineError
    from holdfast.vllm.compaction.compaction_file import read_prefix

    path = _written(tmp_path, b"a")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(EngineError, match="is damaged"):
        read_prefix(path)


def test_file_of_another_name_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"somebody's")
    assert len(_catalog(tmp_path)) == 0
    assert other.exists()
