"""Relays between the clients and the sessions of one MCP server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.stdio import stdio_server

from holdfast.mcp_proxy.file_stamp import stamp_files
from holdfast.mcp_proxy.pump import run_relay
from holdfast.mcp_proxy.relay import Relay
from holdfast.mcp_proxy.result_memory import MemoryCounts, MemoryLimits, ResultMemory
from holdfast.mcp_proxy.speculation import Experience, Speculation, SpeculationCounts
from holdfast.mcp_proxy.speculation_ledger import SpeculationLedger

__all__ = ["Ended", "ServerOpener", "ToolProxy", "command_opener", "serve_stdio", "url_opener"]

ServerOpener = Callable[[], AbstractAsyncContextManager[Any]]
"""Opens a session with the server: its streams, as an asynchronous context."""

Ended = Callable[[bool], None]
"""Told whether the client ended; where the server did, ends the process.

A thread waits for the client then, and nothing interrupts it.
"""

Counts = TypeVar("Counts", MemoryCounts, SpeculationCounts)


def command_opener(command: Sequence[str]) -> ServerOpener:
    """A server that is started for each session and ended with it.

    It has this process's environment and directory. Opening raises OSError if it cannot be started.
    """
    program, *arguments = command
    parameters = StdioServerParameters(command=program, args=arguments, env=dict(os.environ))
    return lambda: stdio_client(parameters)


def url_opener(url: str) -> ServerOpener:
    """A server reached by streamable HTTP."""
    return lambda: streamable_http_client(url)


@dataclass(slots=True)
class ToolProxy:
    """Makes the relays of one server's clients, and counts what they did together.

    Results are remembered by session. Which calls follow which is learned by tenant.

    Args:
        open_server: Opens a session with the server.
        limits: Of each session's memory.
        waste_weight: Seconds saved that a wasted second of the server costs (>= 0); None makes no
            calls early.
    """

    open_server: ServerOpener
    limits: MemoryLimits = field(default_factory=MemoryLimits)
    waste_weight: float | None = None
    _ended: MemoryCounts = field(init=False, default_factory=MemoryCounts)
    _memories: list[ResultMemory] = field(init=False, default_factory=list)
    _speculated: SpeculationCounts = field(init=False, default_factory=SpeculationCounts)
    _experience: dict[str, Experience] = field(init=False, default_factory=dict)  # by tenant
    _directory: Path = field(init=False, default_factory=Path.cwd)

    @contextmanager
    def relay(self, tenant: str = "") -> Iterator[Relay]:
        """A relay for one session of a tenant, until its context ends. Mutates."""
        directory = self._directory
        memory = ResultMemory(
            lambda arguments: stamp_files(arguments, directory),
            *(time.monotonic, _epoch_s, self.limits),
        )
        speculation = None
        if self.waste_weight is not None:
            ledger = SpeculationLedger(self.waste_weight)
            experience = self._experience.setdefault(tenant, Experience(ledger=ledger))
            speculation = Speculation(memory, experience, time.monotonic, self._speculated)
        self._memories.append(memory)
        try:
            yield Relay(memory, speculation)
        finally:
            self._memories.remove(memory)
            self._ended = _sum(self._ended, memory.counts)

    @property
    def num_sessions(self) -> int:
        """Sessions that are open (count)."""
        return len(self._memories)

    @property
    def memory_counts(self) -> MemoryCounts:
        """What all sessions' memories did. Pure."""
        counts = self._ended
        for memory in list(self._memories):
            counts = _sum(counts, memory.counts)
        return counts

    @property
    def speculation_counts(self) -> SpeculationCounts | None:
        """Outcomes of all sessions' predictions; None without any. Pure."""
        return None if self.waste_weight is None else self._speculated


async def serve_stdio(proxy: ToolProxy, ended: Ended) -> None:
    """Serve one client on standard input and output, until it or the server ends."""
    with proxy.relay() as relay:
        async with proxy.open_server() as to_server, stdio_server() as to_client:
            is_client_gone = await run_relay(to_client, to_server, relay)
            ended(is_client_gone)  # now: clients do not wait for the server's end


def _sum(one: Counts, other: Counts) -> Counts:
    return type(one)(
        **{each.name: getattr(one, each.name) + getattr(other, each.name) for each in fields(one)}
    )


def _epoch_s() -> float:
    return time.time_ns() / 1e9
