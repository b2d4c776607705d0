"""`holdfast pool` on a directory of made-up blocks."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.pool.files import stored

from holdfast.cli.main import cli
from holdfast.errors import ConfigError
from holdfast.pool.block_file import FOOTER_BYTES, write_block
from holdfast.pool.directory import PoolDirectory
from holdfast.pool.identity import PoolIdentity

ONE = PoolIdentity({"model": "one", "vllm": "0.32.0", "kv_cache_dtype": "auto"})
OTHER = PoolIdentity({"model": "other", "vllm": "0.32.0", "kv_cache_dtype": "fp8"})


@pytest.fixture
def pool(tmp_path: Path) -> PoolDirectory:
    """Two whole blocks of one identity and one of another."""
    pool = PoolDirectory.make(tmp_path / "pool")
    for identity, name in ((ONE, "a/1.bin"), (ONE, "a/2.bin"), (OTHER, "a/1.bin")):
        path = stored(pool, identity, name, b"")
        write_block(path, pool.location_of(path), memoryview(b"x" * 100))
    return pool


def run(*arguments: object, fails: bool = False) -> Result:
    result = CliRunner().invoke(cli, ["pool", *map(str, arguments)])
    assert (result.exit_code != 0) == fails, result.output
    return result


def parsed(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json").output)


def test_ls_lists_identities(pool: PoolDirectory) -> None:
    rows = {row["fields"]["model"]: row for row in parsed("ls", pool.path)}
    assert {name: row["num_blocks"] for name, row in rows.items()} == {"one": 2, "other": 1}
    assert rows["one"]["num_bytes"] == 2 * (100 + FOOTER_BYTES)
    assert 0 <= rows["one"]["unused_s"] < 60
    output = run("ls", pool.path).output
    assert "fp8" in output
    assert ONE.name in output.replace("\n", "")


def test_ls_shows_identity_with_damaged_description(pool: PoolDirectory) -> None:
    (pool.directory_of(ONE) / "identity.json").write_text("{", encoding="utf-8")
    assert "?" in run("ls", pool.path).output


def test_stat_sums_all_identities(pool: PoolDirectory) -> None:
    stored(pool, ONE, "a/3.bin.0.tmp", b"123")
    total = parsed("stat", pool.path)
    assert total["num_identities"] == 2
    assert total["num_blocks"] == 3
    assert total["num_unfinished"] == 1
    assert total["num_bytes"] == 3 * (100 + FOOTER_BYTES) + 3
    assert "3 blocks of 2 identities" in run("stat", pool.path).output


def test_empty_pool_has_no_ages(tmp_path: Path) -> None:
    PoolDirectory.make(tmp_path)
    assert parsed("stat", tmp_path)["unused_s"] is None
    assert "last used -" in run("stat", tmp_path).output


def test_verify_finds_damaged_blocks_and_keeps_them(pool: PoolDirectory) -> None:
    path = pool.directory_of(ONE) / "a" / "1.bin"
    path.write_bytes(b"y" + path.read_bytes()[1:])
    result = run("verify", pool.path, fails=True)
    assert f"corrupt: {path.relative_to(pool.path)}" in result.output
    assert "3 blocks, 1 are not whole" in result.output
    assert path.exists()
    found = json.loads(run("verify", pool.path, "--json", fails=True).output)
    assert found["states"] == {"corrupt": 1, "whole": 2}


def test_verify_removes_only_damaged_blocks(pool: PoolDirectory) -> None:
    path = pool.directory_of(ONE) / "a" / "1.bin"
    path.write_bytes(b"short")
    run("verify", pool.path, "--remove")
    assert not path.exists()
    assert "2 blocks, 0 are not whole" in run("verify", pool.path).output


def test_evict_shrinks_pool_to_size(pool: PoolDirectory) -> None:
    num_bytes = 100 + FOOTER_BYTES
    left = parsed("evict", pool.path, "--to-gib", num_bytes / (1 << 30))
    assert (left["num_blocks"], left["num_evicted"]) == (1, 2)
    assert parsed("stat", pool.path)["num_bytes"] == num_bytes


def test_evict_removes_old_blocks(pool: PoolDirectory) -> None:
    stored(pool, ONE, "a/1.bin", b"", used_s=time.time_ns() / 1e9 - 500)
    assert parsed("evict", pool.path, "--unused-s", 400)["num_expired"] == 1
    assert "removed 0 blocks" in run("evict", pool.path, "--unused-s", 400).output


def test_evict_requires_a_bound(pool: PoolDirectory) -> None:
    assert "--to-gib" in run("evict", pool.path, fails=True).output


def test_clear_removes_one_identity_or_all_and_asks(pool: PoolDirectory) -> None:
    assert "remove 2 identities" in run("clear", pool.path, fails=True).output
    assert parsed("clear", pool.path, "--identity", ONE.name, "--yes")["num_identities"] == 1
    assert [row["identity"] for row in parsed("ls", pool.path)] == [OTHER.name]
    run("clear", pool.path, "--yes")
    assert parsed("ls", pool.path) == []


@pytest.mark.parametrize("command", ["ls", "stat", "verify", "clear"])
def test_directory_that_is_no_pool_is_untouched(tmp_path: Path, command: str) -> None:
    (tmp_path / "0123456789abcdef01234567").mkdir()
    result = run(command, tmp_path, fails=True)
    assert isinstance(result.exception, ConfigError)
    assert "is not a pool" in str(result.exception)
    assert list(tmp_path.iterdir()) != []
