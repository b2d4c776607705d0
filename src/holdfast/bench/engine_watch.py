"""Reads a running engine again and again: its metrics and control routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from holdfast.core.engine_view import (
    EngineReading,
    EngineView,
    MetricValue,
    down,
    view_of,
)
from holdfast.core.seen_state import SeenState

__all__ = ["EngineWatch", "look_at_all"]

_TIMEOUT: Final = aiohttp.ClientTimeout(total=5.0)
_MAX_BYTES: Final = 64 << 20
_ROUTE: Final = "/holdfast/v1/sessions?limit=200"
_ROUTES_OFF: Final = (
    "no token: start the engine with --holdfast-token-file FILE, and give --token-file FILE here"
)


class _StateAnswer(msgspec.Struct, frozen=True):
    engines: list[SeenState] = []


class EngineWatch:
    """Watches one engine; keeps its last reading, so that rates are of an interval.

    Args:
        url: Its address, without a path.
        token: Bearer token of its control routes; None reads metrics alone.
        clock: Time of readings (s).
    """

    def __init__(
        self, url: str, token: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._clock = clock
        self._last: EngineReading | None = None
        self._view: EngineView | None = None

    async def look(self, http: aiohttp.ClientSession) -> EngineView:
        """Read the engine once; the view has the error if it cannot be read."""
        try:
            reading = await self._read(http)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # The next reading begins a new interval: what happened meanwhile is not of this one.
            self._last = None
            return down(self._url, str(error) or type(error).__name__, self._view)
        self._view = view_of(self._url, self._last, reading)
        self._last = reading
        return self._view

    async def _read(self, http: aiohttp.ClientSession) -> EngineReading:
        text = await _text(http, f"{self._url}/metrics", {})
        metrics = [
            MetricValue(sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]
        if not any(one.name.startswith("vllm:") for one in metrics):
            raise ValueError("/metrics has nothing of vLLM's: is this an engine?")
        states, why_not = await self._states(http)
        return EngineReading(self._clock(), metrics, states, why_not)

    async def _states(self, http: aiohttp.ClientSession) -> tuple[Sequence[SeenState], str]:
        if self._token is None:
            return (), _ROUTES_OFF
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            text = await _text(http, f"{self._url}{_ROUTE}", headers)
            return msgspec.json.decode(text, type=_StateAnswer).engines, ""
        except aiohttp.ClientResponseError as error:
            if error.status == 401:
                return (), "the engine refuses the token"
            if error.status == 404:
                return (), "the engine has no routes: start it with --holdfast-token-file FILE"
            return (), f"the routes answered {error.status}"
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return (), f"the routes cannot be read: {error or type(error).__name__}"


async def look_at_all(watches: Sequence[EngineWatch]) -> list[EngineView]:
    """Read all engines at the same time, in order."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
        return await asyncio.gather(*(watch.look(http) for watch in watches))


async def _text(http: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> str:
    async with http.get(url, headers=headers, raise_for_status=True) as response:
        content = await response.content.read(_MAX_BYTES)
        while chunk := await response.content.read(_MAX_BYTES - len(content)):
            content += chunk
        return content.decode("utf-8", "replace")
