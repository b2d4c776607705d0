"""Relays between the clients and the sessions of one MCP server."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.stdio import stdio_server

from holdfast.mcp_proxy.call_policies import CallPolicies, PolicyActions
from holdfast.mcp_proxy.early_calls import EarlyCalls, EarlyCounts
from holdfast.mcp_proxy.file_stamp import stamp_files
from holdfast.mcp_proxy.pump import run_relay
from holdfast.mcp_proxy.relay import Relay
from holdfast.mcp_proxy.session_calls import CallCounts, ResultRules, SessionCalls
from holdfast.policies.calls import CallPolicy

__all__ = [
    *("Ended", "PolicyBuilder", "ServerOpener", "ToolProxy"),
    *("command_opener", "serve_stdio", "url_opener"),
]

ServerOpener = Callable[[], AbstractAsyncContextManager[Any]]
"""Opens a session with the server: its streams, as an asynchronous context."""

Ended = Callable[[bool], None]
"""Told whether the client ended; where the server did, ends the process.

A thread waits for the client then, and nothing interrupts it.
"""

PolicyBuilder = Callable[[], Sequence[CallPolicy]]
"""Builds the policies of one tenant, in the order in which they are asked."""


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

    Results are known by session. What policies learn is of one tenant.

    Args:
        open_server: Opens a session with the server.
        build_policies: Of each tenant.
        rules: Which results may be given again.

    Attributes:
        call_counts: Calls of all sessions.
        actions: What policies did.
        num_sessions: Sessions that are open (count).
    """

    open_server: ServerOpener
    build_policies: PolicyBuilder = tuple
    rules: ResultRules = field(default_factory=ResultRules)
    call_counts: CallCounts = field(init=False, default_factory=CallCounts)
    actions: PolicyActions = field(init=False, default_factory=PolicyActions)
    num_sessions: int = field(init=False, default=0)
    _early_counts: EarlyCounts = field(init=False, default_factory=EarlyCounts)
    _does_predict: bool = field(init=False)
    _tenants: dict[str, CallPolicies] = field(init=False, default_factory=dict)
    _numbers: Iterator[int] = field(init=False, default_factory=itertools.count)
    _directory: Path = field(init=False, default_factory=Path.cwd)

    def __post_init__(self) -> None:
        self._does_predict = CallPolicies(self.build_policies()).does_predict

    @contextmanager
    def relay(self, tenant: str = "") -> Iterator[Relay]:
        """A relay for one session of a tenant, until its context ends. Mutates."""
        policies = self._policies(tenant)
        directory = self._directory
        calls = SessionCalls(
            next(self._numbers),
            policies,
            lambda arguments: stamp_files(arguments, directory),
            time.monotonic,
            _epoch_s,
            self.rules,
            self.call_counts,
        )
        early_calls = None
        if self._does_predict:
            early_calls = EarlyCalls(calls, policies, time.monotonic, self._early_counts)
        self.num_sessions += 1
        try:
            yield Relay(calls, early_calls)
        finally:
            self.num_sessions -= 1
            calls.close()

    @property
    def early_counts(self) -> EarlyCounts | None:
        """Outcomes of all sessions' predictions; None where no policy predicts. Pure."""
        return self._early_counts if self._does_predict else None

    def _policies(self, tenant: str) -> CallPolicies:
        if tenant not in self._tenants:
            self._tenants[tenant] = CallPolicies(self.build_policies(), self.actions)
        return self._tenants[tenant]


async def serve_stdio(proxy: ToolProxy, ended: Ended) -> None:
    """Serve one client on standard input and output, until it or the server ends."""
    with proxy.relay() as relay:
        async with proxy.open_server() as to_server, stdio_server() as to_client:
            is_client_gone = await run_relay(to_client, to_server, relay)
            ended(is_client_gone)  # now: clients do not wait for the server's end


def _epoch_s() -> float:
    return time.time_ns() / 1e9
