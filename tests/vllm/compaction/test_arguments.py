"""Compaction's settings as vLLM's arguments; without them, none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.config import HoldfastConfig
from holdfast.errors import ConfigError

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("loaded_engine")]


def _arguments(*own: str, **settings: Any) -> list[str]:
    from holdfast.vllm.compaction.arguments import compaction_arguments

    return compaction_arguments(HoldfastConfig(**settings), own)


def test_without_a_directory_nothing_is_added() -> None:
    assert _arguments("model") == []


def test_settings_reach_the_connector() -> None:
    from holdfast.vllm.compaction.options import CompactionOptions

    name, text, *rest = _arguments("model", compact_dir="/x", compact_share=0.5, compact_gib=2.0)
    found = json.loads(text)
    assert name == "--kv-transfer-config"
    assert found["kv_load_failure_policy"] == "fail"
    assert rest == ["--prefix-caching-hash-algo", "sha256_cbor"]
    options = CompactionOptions.of(found["kv_connector_extra_config"])
    assert options == CompactionOptions("/x", 2.0, 0.5)


def test_with_tiers_one_connector_has_both_settings() -> None:
    from holdfast.vllm.tiered_compaction.arguments import tiered_compaction_config

    settings: dict[str, Any] = {"compact_dir": "/x", "host_gib": 1.0}
    assert _arguments("model", **settings) == ["--prefix-caching-hash-algo", "sha256_cbor"]
    assert _arguments("model", pool_dir="/y", **settings) == []  # the pool's arguments have it
    found = tiered_compaction_config(HoldfastConfig(**settings))
    assert found["kv_connector"] == "TieredCompactionConnector"
    assert found["kv_load_failure_policy"] == "fail"
    extra = found["kv_connector_extra_config"]
    assert extra["cpu_bytes_to_use"] == 1 << 30
    assert extra["compaction"]["compact_dir"] == "/x"


@pytest.mark.parametrize("own", ["--kv-transfer-config", "--kv_offloading_size=3"])
def test_second_connector_is_refused(own: str) -> None:
    with pytest.raises(ConfigError, match="vLLM takes one connector"):
        _arguments("model", own, compact_dir="/x")


def test_warm_ups_are_refused() -> None:
    with pytest.raises(ConfigError, match="compute the placeholders"):
        _arguments("model", compact_dir="/x", warm_up_share=0.1)


def test_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="called 'best'") as caught:
        _arguments("model", compact_dir="/x", compact_method="best")
    assert "keydiff" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({}, "missing required field `compact_dir`"),
        ({"compact_dir": "/x", "share": 0.5}, "unknown field `share`"),
        ({"compact_dir": "/x", "compact_share": 1.5}, "compact_share"),
    ],
)
def test_connector_of_a_stock_server_checks_its_options(extra: dict[str, Any], why: str) -> None:
    from holdfast.vllm.compaction.options import CompactionOptions

    with pytest.raises(ConfigError, match=why):
        CompactionOptions.of(extra)
