"""Asks engines whether they answer, have restarted, and how large they are."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from typing import Final

import aiohttp

from holdfast.gateway.engines import Engine
from holdfast.gateway.metrics import GatewayMetrics

__all__ = ["EngineProbes"]

logger = logging.getLogger(__name__)

_PROBE_TIMEOUT_S: Final = 2.0
_CACHE_INFO = re.compile(r"^vllm:cache_config_info\{([^}]*)\}", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_ADMITS: Final = "\nholdfast_"  # a metric of `holdfast serve`
_STARTED = re.compile(r"^process_start_time_seconds\S* (\S+)", re.MULTILINE)


class EngineProbes:
    """Asks engines for their health and metrics, again and again.

    Args:
        engines: The engines, which it keeps up to date.
        metrics: Shows which are up.
        probe_s: Time between probes of an engine (s).
        on_lost: Told of an engine that no longer answers.
        on_restarted: Told of one whose process is a new one.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        metrics: GatewayMetrics,
        probe_s: float,
        on_lost: Callable[[Engine], None],
        on_restarted: Callable[[Engine], None],
    ) -> None:
        self._engines = engines
        self._metrics = metrics
        self._probe_s = probe_s
        self._on_lost, self._on_restarted = on_lost, on_restarted
        self._started_at: dict[Engine, str] = {}

    async def run(self, client: aiohttp.ClientSession) -> None:
        """Probe until cancelled."""
        while True:
            await asyncio.gather(*(self._probe(client, engine) for engine in self._engines))
            await asyncio.sleep(self._probe_s)

    async def _probe(self, client: aiohttp.ClientSession, engine: Engine) -> None:
        was_up = engine.is_up
        timeout = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT_S)
        try:
            async with client.get(f"{engine.url}/health", timeout=timeout) as answer:
                is_up = answer.status == 200
            async with client.get(f"{engine.url}/metrics", timeout=timeout) as answer:
                self._take_metrics(engine, await answer.text() if answer.status == 200 else "")
        except TimeoutError:
            is_up = was_up  # a busy engine answers late; a dead one refuses
        except (aiohttp.ClientError, OSError, UnicodeDecodeError):
            is_up = False
        if was_up and not is_up:
            self._on_lost(engine)
        elif is_up and not was_up:
            logger.info("engine %s answers again", engine.name)
            engine.is_up = True
        self._metrics.engines_up.labels(engine.name).set(engine.is_up)

    def _take_metrics(self, engine: Engine, text: str) -> None:
        if found := _CACHE_INFO.search(text):
            labels = dict(_LABEL.findall(found[1]))
            sizes = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
            engine.admits = _ADMITS in text
            if all(size.isdecimal() for size in sizes):
                engine.learn_capacity(int(sizes[0]) * int(sizes[1]))
        if found := _STARTED.search(text):
            before = self._started_at.setdefault(engine, found[1])
            if before != found[1]:
                self._started_at[engine] = found[1]
                self._on_restarted(engine)
