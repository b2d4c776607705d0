"""The check of the installed vLLM's version before an engine is built."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

import holdfast.vllm.contract as contract
import holdfast.vllm.versions as versions
from holdfast.errors import EngineError
from holdfast.vllm.versions import check_scheduler, check_tiers, engine_version, is_tested


@pytest.fixture(autouse=True)
def _checks_anew() -> Iterator[None]:
    versions._compare.cache_clear()
    yield
    versions._compare.cache_clear()


def _find_breaches(monkeypatch: pytest.MonkeyPatch, *found: str) -> list[str]:
    asked: list[str] = []

    def breaches(modules: list[str]) -> list[str]:
        asked.extend(modules)
        return list(found)

    monkeypatch.setattr(contract, "breaches", breaches)
    return asked


def test_missing_vllm_reported_with_install_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.vllm.versions.importlib.util.find_spec", lambda _name: None)
    with pytest.raises(EngineError, match="not installed") as caught:
        engine_version()
    assert "holdfast[vllm]" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("version", "is_refused"), [("0.22.1", True), ("0.23.0", False), ("1.0", False), ("dev", False)]
)
def test_too_old_vllm_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: str, *, is_refused: bool
) -> None:
    module = SimpleNamespace(__version__=version)
    monkeypatch.setattr("holdfast.vllm.versions.importlib.util.find_spec", lambda _name: object())
    monkeypatch.setattr("holdfast.vllm.versions.importlib.import_module", lambda _name: module)
    if is_refused:
        with pytest.raises(EngineError, match=r"0\.22\.1 is too old") as caught:
            engine_version()
        assert "pip install 'vllm==0.33.*'" in (caught.value.hint or "")
    else:
        assert engine_version() == version


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.27.1", False),
        ("0.28.0", True),
        ("0.31.0+cpu", True),
        ("0.33.2", True),
        ("0.34.0", False),
        ("1.0", False),
        ("0.1.dev7+gabc", False),
        ("dev", False),
    ],
)
def test_minor_version_decides_what_is_tested(version: str, *, expected: bool) -> None:
    assert is_tested(version) is expected


def test_tested_version_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _find_breaches(monkeypatch, "anything")
    check_scheduler("0.32.0")
    check_tiers("0.33.0")
    assert asked == []


@pytest.mark.parametrize("version", ["0.25.0", "0.34.1"])
def test_untested_version_that_fits_runs_with_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    asked = _find_breaches(monkeypatch)
    with caplog.at_level(logging.WARNING):
        check_scheduler(version)
        check_scheduler(version)
    assert "holdfast.vllm.scheduler" in asked
    assert "holdfast.vllm.offload.spec" not in asked
    assert len(caplog.messages) == 1  # not again in the same process
    assert f"vLLM {version} is not tested" in caplog.text
    assert "0.28 to 0.33" in caplog.text


def test_untested_version_that_lacks_names_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = _find_breaches(monkeypatch, *(f"Base.method_{i} takes more" for i in range(7)))
    with pytest.raises(EngineError, match=r"vLLM 0\.34\.0 is not tested") as caught:
        check_tiers("0.34.0", "host_gib")
    assert "holdfast.vllm.offload.host_policy" in asked
    assert "would fail on it: Base.method_0 takes more; " in str(caught.value)
    assert str(caught.value).endswith("Base.method_4 takes more; and 2 more")
    assert "go without tiers; pip install 'vllm==0.33.*'" in (caught.value.hint or "")


def test_too_old_for_tiers_error_names_the_setting() -> None:
    with pytest.raises(EngineError, match=r"pool_dir needs vLLM 0\.32 or newer, this is 0\.31\.0"):
        check_tiers("0.31.0", "pool_dir")
