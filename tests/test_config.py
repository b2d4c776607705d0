"""Settings: sources, precedence and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config import HoldfastConfig, load_config, to_environ
from holdfast.errors import ConfigError


def _toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "holdfast.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_no_source_gives_the_defaults() -> None:
    assert load_config(None, {}) == HoldfastConfig()


def test_later_source_wins(tmp_path: Path) -> None:
    path = _toml(tmp_path, "[holdfast]\nmax_wait_ratio = 5\nmax_sessions = 6\nhints = false\n")
    environ = {"HOLDFAST_MAX_WAIT_RATIO": "7", "HOLDFAST_MAX_SESSIONS": "8"}
    config = load_config(path, environ, {"max_sessions": 9})
    assert (config.max_wait_ratio, config.max_sessions, config.hints) == (7, 9, False)


@pytest.mark.parametrize("text", ["[holdfast]\neviction_policy = 'lru'\n", "eviction = 'lru'\n"])
def test_unknown_key_of_file_lists_known_keys(tmp_path: Path, text: str) -> None:
    path = _toml(tmp_path, text)
    with pytest.raises(ConfigError, match="unknown") as caught:
        load_config(path, {})
    assert str(path) in str(caught.value)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("known: ")


def test_unknown_variable_lists_known_ones() -> None:
    with pytest.raises(ConfigError, match="'HOLDFAST_EVICT'") as caught:
        load_config(None, {"HOLDFAST_EVICT": "lru"})
    assert "HOLDFAST_EVICTION" in (caught.value.hint or "")


def test_other_variables_are_ignored() -> None:
    environ = {"HOLDFAST_DEBUG": "1", "HOLDFAST_METRICS_DIR": "/x", "HOME": "/"}
    assert load_config(None, environ) == HoldfastConfig()


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("HOLDFAST_EVICTION", "fifo", "'policy' or 'lru'"),
        ("HOLDFAST_MAX_SESSIONS", "0", "a whole number from 1"),
        ("HOLDFAST_MAX_SESSIONS", "many", "a whole number from 1"),
        ("HOLDFAST_HEADROOM_RATIO", "0.6", "a number from 0.0 to 0.5"),
        ("HOLDFAST_HEADROOM_RATIO", "nan", "a number from 0.0 to 0.5"),
        ("HOLDFAST_HINTS", "maybe", "true or false"),
        ("HOLDFAST_HOST_GIB", "0", "a number above 0"),
        ("HOLDFAST_HOST_GIB", "-1", "a number above 0"),
        ("HOLDFAST_HOST_GIB", "inf", "a number above 0"),
        ("HOLDFAST_POOL_GIB", "nan", "a number above 0"),
        ("HOLDFAST_TTFT_P99_TARGET_S", "0", "a number above 0"),
        ("HOLDFAST_POOL_TTL_S", "week", "a number above 0"),
    ],
)
def test_bad_value_names_variable_value_and_range(variable: str, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {variable: text})
    message = str(caught.value)
    assert variable in message
    assert text in message
    assert message.endswith(f"expected {expected}")


@pytest.mark.parametrize("line", ["max_sessions = true", "hints = 1", "decision_log = ''"])
def test_file_value_of_the_wrong_type_is_refused(tmp_path: Path, line: str) -> None:
    path = _toml(tmp_path, f"[holdfast]\n{line}\n")
    with pytest.raises(ConfigError, match="expected"):
        load_config(path, {})


def test_file_that_is_not_toml_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(_toml(tmp_path, "[holdfast\n"), {})


def test_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "missing.toml", {})


def test_whole_number_is_accepted_as_ratio(tmp_path: Path) -> None:
    config = load_config(_toml(tmp_path, "[holdfast]\nheadroom_ratio = 0\n"), {})
    assert isinstance(config.headroom_ratio, float)


def test_unknown_explicit_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="'nothing'"):
        load_config(None, {}, {"nothing": 1})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"pool_dir": "/x"}, "pool_dir needs host_gib"),
        ({"host_gib": 1.0, "pool_gib": 1.0}, "pool_gib needs pool_dir"),
        ({"host_gib": 1.0, "pool_ttl_s": 1.0}, "pool_ttl_s needs pool_dir"),
        ({"compact_gib": 1.0}, "compact_gib needs compact_dir"),
        ({"compact_before_drop": True}, "compact_before_drop needs compact_dir"),
    ],
)
def test_setting_without_the_one_it_needs_is_refused(
    settings: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_config(None, {}, settings)


def test_compaction_is_off_by_default() -> None:
    assert HoldfastConfig().compact_dir is None
    assert not HoldfastConfig(compact_dir="/x", host_gib=1.0).compact_before_drop
    with pytest.raises(ConfigError, match="compact_before_drop needs compact_dir"):
        HoldfastConfig(compact_before_drop=True, host_gib=1.0)


def test_tiers_are_off_by_default_and_can_be_disabled(tmp_path: Path) -> None:
    assert HoldfastConfig().host_gib is None
    path = _toml(tmp_path, "[holdfast]\nhost_gib = 2\n")
    assert load_config(path, {}).host_gib == 2.0
    assert load_config(path, {"HOLDFAST_HOST_GIB": ""}).host_gib is None


_AMOUNTS = st.floats(0, 1e12, exclude_min=True)


@given(
    config=st.builds(
        HoldfastConfig,
        eviction=st.sampled_from(["policy", "lru"]),
        admission=st.sampled_from(["policy", "fcfs"]),
        max_wait_ratio=st.floats(0.1, 100.0),
        ttft_p99_target_s=st.none() | _AMOUNTS,
        headroom_ratio=st.floats(0.0, 0.5),
        max_sessions=st.integers(1, 10**6),
        decision_log=st.none() | st.text(st.characters(categories=["L", "N"]), min_size=1),
        learned_file=st.none() | st.text(st.characters(categories=["L", "N"]), min_size=1),
        hints=st.booleans(),
        compact_share=st.floats(0.05, 0.95),
        host_gib=_AMOUNTS,
        pool_dir=st.just("/pool"),
        pool_gib=st.none() | _AMOUNTS,
        pool_ttl_s=st.none() | _AMOUNTS,
        strict=st.booleans(),
    )
)
def test_environment_restores_every_setting(config: HoldfastConfig) -> None:
    assert load_config(None, to_environ(config)) == config
