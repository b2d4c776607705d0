"""A real Prometheus as a child process, and questions to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from live_fleet.ports import HOST, free_port

__all__ = ["BINARY", "Prometheus"]

BINARY: Final = shutil.which("prometheus")
"""The program; None where it is not installed."""

_START_S: Final = 60.0


class Prometheus:
    """Scrapes some targets every second; a context manager that leaves no process.

    Args:
        directory: For its files.
        targets: Addresses by name of the job.
        rules: Alert rules.
    """

    def __init__(self, directory: Path, targets: Mapping[str, Sequence[str]], rules: bytes) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "rules.yaml").write_bytes(rules)
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
                for job, addresses in targets.items()
            ],
        }
        # JSON is YAML.
        (directory / "prometheus.yml").write_text(json.dumps(config))
        self._directory = directory
        self.address = f"{HOST}:{free_port()}"

    def __enter__(self) -> Self:
        assert BINARY is not None
        log = (self._directory / "prometheus.log").open("wb")
        with log:
            self._process = subprocess.Popen(
                [
                    BINARY,
                    f"--config.file={self._directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address={self.address}",
                ],
                stdout=log,
                stderr=log,
            )
        deadline_s = time.monotonic() + _START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self._end()
                raise RuntimeError((self._directory / "prometheus.log").read_text()[-2000:])
            time.sleep(0.2)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def range(self, query: str, first_s: float, last_s: float, step_s: float) -> list[Any]:
        """The series of a query over a time: each with `metric` and `values`."""
        found: list[Any] = self._get(
            "query_range", query=query, start=str(first_s), end=str(last_s), step=str(step_s)
        )["result"]
        return found

    def now_s(self) -> float:
        """The server's time (s since 1970)."""
        return float(self._get("query", query="time()")["result"][0])

    def targets_up(self) -> int:
        """Targets whose last scrape succeeded (count)."""
        return sum(one["health"] == "up" for one in self._get("targets")["activeTargets"])

    def rules(self) -> list[dict[str, Any]]:
        """All alert rules, with their health and state."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        url = f"http://{self.address}/api/v1/{path}?{query}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
