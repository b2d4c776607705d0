"""Metrics from the engine core to the API process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from tests.waiting import until

import holdfast.vllm.metrics as module
from holdfast.bench.scrape import parse_metrics
from holdfast.vllm.metric_files import ValueFiles
from holdfast.vllm.metrics import METRICS_DIR_VARIABLE, EngineMetrics, publish_engine_metrics
from holdfast.vllm.metrics_directory import new_directory, remove_abandoned


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[CollectorRegistry]:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.delenv(METRICS_DIR_VARIABLE, raising=False)
    monkeypatch.setattr(module, "_published", None)
    yield CollectorRegistry()
    os.environ.pop(METRICS_DIR_VARIABLE, None)


@pytest.fixture
def directory(registry: CollectorRegistry) -> Path:
    chosen = publish_engine_metrics(registry)
    assert chosen is not None
    return chosen


def _page(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def test_engine_core_counts_appear_in_the_api_process(
    registry: CollectorRegistry, directory: Path
) -> None:
    # Another process, like the engine core: it finds the directory in its environment.
    counts = (
        "from holdfast.vllm.metrics import EngineMetrics\n"
        "metrics = EngineMetrics.from_environment()\n"
        "metrics.evicted('tool', 3)\n"
        "metrics.fell_back('admission')\n"
        "metrics.hinted('retain_s', 'clipped')\n"
        "metrics.set_sessions({'running': 2})\n"
        "metrics.admitted(0.3)\n"
        "metrics.close()\n"
    )
    subprocess.run([sys.executable, "-c", counts], check=True)
    page = _page(registry)
    assert 'holdfast_evicted_blocks_total{reason="tool"} 3.0' in page
    assert 'holdfast_evicted_blocks_total{reason="unknown"} 0.0' in page
    assert 'holdfast_fallbacks_total{where="admission"} 1.0' in page
    assert 'holdfast_hints_total{field="retain_s",outcome="clipped"} 1.0' in page
    assert 'holdfast_sessions{state="running"} 2.0' in page
    assert 'holdfast_wait_seconds_bucket{le="0.1"} 0.0' in page
    assert 'holdfast_wait_seconds_bucket{le="0.5"} 1.0' in page
    assert "holdfast_wait_seconds_sum 0.3" in page


def test_engines_of_one_process_are_summed(registry: CollectorRegistry, directory: Path) -> None:
    engines = [EngineMetrics.from_environment() for _ in range(3)]
    for engine in engines:
        for number in range(200):
            engine.fell_back(f"place {number}")  # files grow while others are opened
        engine.flush()
        if len(engines) < 6:
            engines.append(EngineMetrics.from_environment())
    page = _page(registry)
    for engine in engines:
        engine.close()
    assert 'holdfast_fallbacks_total{where="place 7"} 6.0' in page


def test_no_metrics_without_an_engine_core(registry: CollectorRegistry, directory: Path) -> None:
    assert not directory.exists()
    assert "holdfast" not in _page(registry)


def test_metrics_page_parses(registry: CollectorRegistry, directory: Path) -> None:
    metrics = EngineMetrics.from_environment()
    metrics.evicted("tool", 3)
    metrics.evicted("human")
    metrics.close()
    assert parse_metrics(_page(registry)).totals["holdfast_evicted_blocks_total"] == 4


def test_idle_engine_exports_its_last_counts(registry: CollectorRegistry, directory: Path) -> None:
    metrics = EngineMetrics.from_environment()
    metrics.reused(5)
    until(lambda: "holdfast_reused_blocks_total 5.0" in _page(registry))
    metrics.close()


def test_publishing_twice_registers_once(registry: CollectorRegistry, directory: Path) -> None:
    assert publish_engine_metrics(registry) == directory


def test_vllms_own_multiprocess_mode_is_used(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert publish_engine_metrics(registry) is None
    metrics = EngineMetrics.from_environment()
    metrics.reused(2)
    metrics.close()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    assert "holdfast_reused_blocks_total 2.0" in _page(registry)


def test_unwritable_directory_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    metrics = EngineMetrics(tmp_path / "file" / "below")
    metrics.admitted(1.0)
    metrics.close()
    assert metrics.snapshot()["holdfast_admissions"] == 1


def test_failing_export_ends_quietly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = EngineMetrics(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(ValueFiles, "write_counter", fail)
    metrics.flush()
    metrics.evicted("tool")
    metrics.flush()
    assert metrics.snapshot()["holdfast_evicted_blocks/tool"] == 1


_WRITER = (
    "import sys\n"
    "from pathlib import Path\n"
    "from holdfast.vllm.metrics import EngineMetrics\n"
    "metrics = EngineMetrics(Path(sys.argv[1]))\n"
    "print('ready', flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def writer(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that writes metrics into a directory, as an engine core does."""
    command = [sys.executable, "-c", _WRITER, str(new_directory())]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_running_engines_directory_stays(writer: subprocess.Popen[str], temporary: Path) -> None:
    remove_abandoned()
    (directory,) = temporary.iterdir()
    assert list(directory.glob("counter_*.db"))


def test_killed_engines_directory_removed_at_next_start(
    writer: subprocess.Popen[str], temporary: Path, registry: CollectorRegistry
) -> None:
    assert len(list(temporary.iterdir())) == 1
    writer.kill()
    writer.wait()
    publish_engine_metrics(registry)
    assert list(temporary.iterdir()) == []


def test_only_our_directories_are_removed(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir()
    (temporary / "elsewhere" / "lock").write_text("")
    (temporary / "holdfast-metrics-link").symlink_to(temporary / "elsewhere")
    (temporary / "holdfast-metrics-unknown").mkdir()
    (temporary / "holdfast-metrics-unknown" / "counter_1.db").write_bytes(b"")
    (temporary / "holdfast-metrics-empty").mkdir()
    remove_abandoned()
    names = {path.name for path in temporary.iterdir()}
    assert names == {"elsewhere", "holdfast-metrics-link", "holdfast-metrics-unknown"}
    assert (temporary / "elsewhere" / "lock").exists()


def test_policy_is_exported_as_a_label(registry: CollectorRegistry, directory: Path) -> None:
    EngineMetrics.from_environment(policy="vllm-default").close()
    assert 'holdfast_policy_info{policy="vllm-default"} 1.0' in _page(registry)
