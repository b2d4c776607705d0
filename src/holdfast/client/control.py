"""Sends commands to an engine's control routes from a thread of its own.

A command never waits, never raises and never fails a request: where the engine cannot be reached
it is dropped, which is logged once a channel.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import json
import logging
import queue
import re
import threading
import time
import urllib.parse
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["ControlChannel", "flush"]

_ROUTES: Final = "/holdfast/v1"
_TIMEOUT_S: Final = 5.0
_BACKOFF_S: Final = 10.0
_EXIT_TIMEOUT_S: Final = 2.0
_MAX_PENDING: Final = 1000
_MAX_REASONS: Final = 100

# An engine forgets sessions and workflows, or has closed them, or was started again; nothing is to
# be done then.
_FORGOTTEN: Final = re.compile(r'"unknown_(session|workflow)"')

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Command:
    method: str
    path: str
    body: Mapping[str, object] | None = None


@dataclass(slots=True, eq=False, weakref_slot=True)
class ControlChannel:
    """Commands to one engine, in order.

    Attributes:
        origin: Scheme, host and port of the engine.
        token: Bearer token of its routes; without one nothing is sent.
        cache_salt: That of the requests: their tenant.
        clock: Time for pauses after failures (s).
    """

    origin: str
    token: str | None = None
    cache_salt: str | None = None
    clock: Callable[[], float] = time.monotonic
    _pending: queue.Queue[_Command] = field(default_factory=lambda: queue.Queue(_MAX_PENDING))
    _thread: threading.Thread | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _failures: set[str] = field(default_factory=set)
    _paused_until_s: float = 0.0

    def __post_init__(self) -> None:
        """Take part in `flush`."""
        _channels.add(self)

    def declare_workflow(self, workflow_id: str, graph: Mapping[str, object]) -> None:
        """Declare or replace a workflow."""
        self._put("PUT", f"/workflows/{_quoted(workflow_id)}", graph)

    def end_workflow(self, workflow_id: str) -> None:
        """End a workflow."""
        self._put("DELETE", f"/workflows/{_quoted(workflow_id)}")

    def start_tool(self, session_id: str, tool: str, expected_s: float | None) -> None:
        """Tell that a session waits for a tool, and for how long if that is known."""
        body: dict[str, object] = {"event": "started", "tool": tool}
        if expected_s is not None:
            body["expected_s"] = expected_s
        self._put("POST", f"/sessions/{_quoted(session_id)}/tools", body)

    def finish_tool(self, session_id: str, tool: str) -> None:
        """Tell that a session does not wait for a tool any more."""
        body = {"event": "finished", "tool": tool}
        self._put("POST", f"/sessions/{_quoted(session_id)}/tools", body)

    def close_session(self, session_id: str) -> None:
        """Tell that no request of a session follows."""
        self._put("DELETE", f"/sessions/{_quoted(session_id)}")

    def flush(self, timeout_s: float) -> bool:
        """Wait until every command was sent or dropped; return whether that is so."""
        deadline_s = time.monotonic() + timeout_s
        pending = self._pending
        with pending.all_tasks_done:
            while pending.unfinished_tasks:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return False
                pending.all_tasks_done.wait(left_s)
        return True

    def _put(self, method: str, path: str, body: Mapping[str, object] | None = None) -> None:
        if self.token is None:
            return
        try:
            self._pending.put_nowait(_Command(method, _ROUTES + path, body))
        except queue.Full:
            self._fail(f"more than {_MAX_PENDING} commands wait")
            return
        with self._lock:
            # A forked process has the object, but not its thread.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="holdfast-control", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while True:
            command = self._pending.get()
            try:
                if self.clock() >= self._paused_until_s:
                    self._send(command)
            except Exception as error:  # noqa: BLE001 - commands must not disturb the application
                self._paused_until_s = self.clock() + _BACKOFF_S
                self._fail(f"{type(error).__name__}: {error}")
            finally:
                self._pending.task_done()

    def _send(self, command: _Command) -> None:
        address = urllib.parse.urlsplit(self.origin)
        is_tls = address.scheme == "https"
        kind = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
        connection = kind(address.hostname or "", address.port, timeout=_TIMEOUT_S)
        content = None if command.body is None else json.dumps(command.body).encode()
        headers = {"Authorization": f"Bearer {self.token}".encode()}
        if content is not None:
            headers["Content-Type"] = b"application/json"
        if self.cache_salt is not None:
            headers["X-Holdfast-Cache-Salt"] = self.cache_salt.encode()
        with contextlib.closing(connection):
            connection.request(command.method, command.path, content, headers)
            response = connection.getresponse()
            answer = response.read(2000).decode("utf-8", "replace")
        is_idle = response.status == http.HTTPStatus.CONFLICT or _FORGOTTEN.search(answer)
        if response.status >= http.HTTPStatus.BAD_REQUEST and not is_idle:
            self._fail(f"{command.method} is answered {response.status}", answer)

    def _fail(self, reason: str, detail: str = "") -> None:
        """Log a reason when it is new; the first is a warning."""
        if reason in self._failures or len(self._failures) >= _MAX_REASONS:
            return
        level = logging.DEBUG if self._failures else logging.WARNING
        self._failures.add(reason)
        _logger.log(
            level,
            "Holdfast's control routes at %s do not work (%s%s); commands are dropped, requests "
            "are not affected; check the token and that the routes are enabled",
            self.origin,
            reason,
            f": {detail}" if detail else "",
        )


def flush(timeout_s: float = _TIMEOUT_S) -> bool:
    """Wait until all commands of this process were sent; return whether they were.

        with session(): ...
        flush()  # the engine knows now that the session has ended

    At the end of the process this is done for up to two seconds.
    """
    deadline_s = time.monotonic() + timeout_s
    return all(
        channel.flush(max(0.0, deadline_s - time.monotonic())) for channel in tuple(_channels)
    )


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


_channels: weakref.WeakSet[ControlChannel] = weakref.WeakSet()
atexit.register(flush, _EXIT_TIMEOUT_S)
