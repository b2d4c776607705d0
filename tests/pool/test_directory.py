"""The layout of a pool's directory, and files that are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pool.files import stored

from holdfast.errors import ConfigError
from holdfast.pool.directory import PoolDirectory
from holdfast.pool.identity import PoolIdentity

ONE, OTHER = PoolIdentity({"model": "m", "vllm": "1"}), PoolIdentity({"model": "m", "vllm": "2"})


def test_pool_is_made_once_and_then_opened(tmp_path: Path) -> None:
    made = PoolDirectory.make(tmp_path / "a" / "pool")
    again = PoolDirectory.make(tmp_path / "a" / "pool")
    assert again.path == made.path == PoolDirectory(made.path).path


@pytest.mark.parametrize("marker", [None, "{", '{"format": 99}', "[]"])
def test_directory_that_is_no_pool_raises(tmp_path: Path, marker: str | None) -> None:
    if marker is not None:
        (tmp_path / "holdfast-pool.json").write_text(marker, encoding="utf-8")
    with pytest.raises(ConfigError, match="pool"):
        PoolDirectory(tmp_path)


def test_file_or_missing_directory_raises(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(ConfigError, match="is not a directory"):
            PoolDirectory(path)
    with pytest.raises(ConfigError, match="is not a directory"):
        PoolDirectory.make(tmp_path / "file")


def test_directory_that_cannot_be_written_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PoolDirectory.make(tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)  # as the test may run as root
    with pytest.raises(ConfigError, match=r"pool_dir is .* reading and writing"):
        PoolDirectory.make(tmp_path)


def test_only_equal_identities_share_a_directory(tmp_path: Path) -> None:
    pool = PoolDirectory.make(tmp_path)
    same = PoolIdentity({"vllm": "1", "model": "m"})
    assert pool.directory_of(ONE) == pool.directory_of(same) != pool.directory_of(OTHER)
    assert pool.directory_of(ONE, "0" * 16) != pool.directory_of(ONE)


def test_identities_are_listed_with_their_fields(tmp_path: Path) -> None:
    pool = PoolDirectory.make(tmp_path)
    for identity in (ONE, OTHER):
        pool.make_directory(pool.directory_of(identity), identity)
    (pool.directory_of(OTHER) / "identity.json").write_text("{", encoding="utf-8")
    assert dict(pool.identities()) == {ONE.name: dict(ONE.fields), OTHER.name: None}


def test_only_blocks_and_unfinished_files_are_listed(tmp_path: Path) -> None:
    pool = PoolDirectory.make(tmp_path)
    stored(pool, ONE, "a/1.bin", b"12", used_s=7.0)
    stored(pool, OTHER, "b/2.bin.0.tmp", b"1", used_s=8.0)
    stored(pool, ONE, "config.json", b"{}")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.bin").write_bytes(b"1")
    files = {Path(file.path).name: file for file in pool.files()}
    assert set(files) == {"1.bin", "2.bin.0.tmp"}
    assert (files["1.bin"].num_bytes, files["1.bin"].used_s) == (2, 7.0)
    assert [file.is_temporary for _, file in sorted(files.items())] == [False, True]
    assert [Path(file.path).name for file in pool.files(ONE.name)] == ["1.bin"]


def test_location_depends_on_path_within_the_pool(tmp_path: Path) -> None:
    here, there = PoolDirectory.make(tmp_path / "here"), PoolDirectory.make(tmp_path / "there")
    location = here.location_of(here.path / "x" / "1.bin")
    assert len(location) == 32
    assert location == there.location_of(there.path / "x" / "1.bin")
    assert location != here.location_of(here.path / "y" / "1.bin")


def test_clearing_one_identity_keeps_the_rest(tmp_path: Path) -> None:
    pool = PoolDirectory.make(tmp_path)
    stored(pool, ONE, "1.bin", b"1")
    kept = stored(pool, OTHER, "2.bin", b"2")
    (tmp_path / "mine").write_bytes(b"")
    pool.clear(ONE.name)
    assert [name for name, _ in pool.identities()] == [OTHER.name]
    assert kept.exists()
    assert (tmp_path / "mine").exists()


@pytest.mark.parametrize("name", ["..", "mine", "0" * 24])
def test_only_an_identity_can_be_cleared(tmp_path: Path, name: str) -> None:
    pool = PoolDirectory.make(tmp_path / "pool")
    (pool.path / "mine").mkdir()
    with pytest.raises(ConfigError, match="no identity"):
        pool.clear(name)
    assert (pool.path / "mine").exists()
