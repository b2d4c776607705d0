"""The value files through which an engine core's metrics reach the API process.

Their format is that of prometheus-client's multi-process mode. Process: engine core.
"""

from __future__ import annotations

import io
import itertools
import os
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.utils import floatToGoString

from holdfast.core.metric_table import METRIC_OF

__all__ = ["WAIT_BOUNDS_S", "ValueFiles"]

# From one schedule call to a long wait in an overloaded server.
WAIT_BOUNDS_S: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds of the wait histogram (s)."""


class ValueFiles:
    """One engine's value files, in prometheus-client's multi-process format.

    Their names have the process id and the engine's number in it: two writers would damage a file.
    """

    _numbers = itertools.count()

    def __init__(self, directory: Path, lock: io.FileIO) -> None:
        writer = f"{os.getpid()}-{next(self._numbers)}"
        self._lock = lock
        self._files = {
            kind: MmapedDict(str(directory / f"{kind}_{writer}.db"))  # type: ignore[no-untyped-call]
            for kind in ("counter", "gauge_livesum", "gauge_livemin", "gauge_livemax", "histogram")
        }
        self._keys: dict[tuple[str, str, tuple[str, ...]], str] = {}

    def close(self) -> None:
        """Close the files; their values stay."""
        for file in self._files.values():
            file.close()  # type: ignore[no-untyped-call]
        self._lock.close()

    def write_counter(self, metric: str, labels: tuple[str, ...], value: float) -> None:
        """Write a counter's value, given the values of its labels."""
        self._write("counter", metric, f"{metric}_total", _named(metric, labels), value)

    def write_gauge(self, metric: str, labels: tuple[str, ...], value: float) -> None:
        """Write a gauge's value, given the values of its labels."""
        kind = f"gauge_live{METRIC_OF[metric].worst or 'sum'}"
        self._write(kind, metric, metric, _named(metric, labels), value)

    def write_wait_histogram(self, counts: list[int], sum_s: float) -> None:
        """Write how many requests waited up to each of `WAIT_BOUNDS_S`, and their sum (s)."""
        metric = "holdfast_wait_seconds"
        bounds = (*WAIT_BOUNDS_S, float("inf"))
        for bound, num_requests in zip(bounds, counts, strict=True):
            labels = {"le": floatToGoString(bound)}  # type: ignore[no-untyped-call]
            self._write("histogram", metric, f"{metric}_bucket", labels, num_requests)
        self._write("histogram", metric, f"{metric}_sum", {}, sum_s)

    def _write(
        self, kind: str, metric: str, name: str, labels: dict[str, str], value: float
    ) -> None:
        cache_key = (kind, name, tuple(labels.values()))
        key = self._keys.get(cache_key)
        if key is None:
            key = mmap_key(
                metric, name, list(labels), list(labels.values()), METRIC_OF[metric].help
            )
            self._keys[cache_key] = key
        self._files[kind].write_value(key, value, 0.0)  # type: ignore[no-untyped-call]


def _named(metric: str, values: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(METRIC_OF[metric].labels, values, strict=True))
