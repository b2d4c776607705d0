"""A real server with its decision log, metrics and control routes, as tests look at it."""

from __future__ import annotations

import http.client
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tests.waiting import LONGEST_S, until

from holdfast.bench.server import EngineServer

__all__ = ["LENGTHS", "TOKEN", "LoggedServer"]

TOKEN: Final = "a token of the tests"
LENGTHS: Final = {
    "/v1/responses": "max_output_tokens",
    "/v1/chat/completions": "max_completion_tokens",
}
"""The field that limits an answer, where it is not `max_tokens`."""

_HINTS = re.compile(r'^holdfast_hints_total\{field="(\w+)",outcome="(\w+)"\} (\S+)$', re.MULTILINE)


class LoggedServer:
    """A running server and the file of its decision log."""

    def __init__(self, server: EngineServer, log: Path) -> None:
        self.model = str(server.options.model)
        self.url = server.url
        self._address = urlsplit(server.url).netloc
        self._log = log

    def ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: Any = None,
        *,
        is_chunked: bool = False,
    ) -> tuple[int, bytes]:
        """Send any request; returns status and content."""
        connection = http.client.HTTPConnection(self._address, timeout=LONGEST_S)
        parts: Any = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if is_chunked:
            parts = iter((parts[:20], parts[20:]))
        headers = {"Content-Type": "application/json", **(headers or {})}
        connection.request(method, path, parts, headers, encode_chunked=is_chunked)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def post(
        self, path: str, headers: dict[str, str], body: Any, *, is_chunked: bool = False
    ) -> tuple[int, bytes]:
        """Send a request for an answer; returns status and content."""
        return self.ask("POST", path, headers, body, is_chunked=is_chunked)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Lines of the decision log about an event."""
        if not self._log.exists():
            return []
        events = map(json.loads, self._log.read_text().splitlines())
        return [line for line in events if line["event"] == event]

    def arrived(self) -> list[dict[str, Any]]:
        """Lines of the decision log about turns that have arrived."""
        return self.logged("turn_arrived")

    def told(
        self, path: str, headers: dict[str, str], body: dict[str, Any], **options: Any
    ) -> dict[str, Any]:
        """What the scheduler was told of one request, which is answered."""
        num_before = len(self.arrived())
        body = {"model": self.model, LENGTHS.get(path, "max_tokens"): 1, **body}
        status, text = self.post(path, headers, body, **options)
        assert status == 200, text
        return until(lambda: self.arrived()[num_before:])[0]

    def hints(self) -> Counter[tuple[str, str]]:
        """Hints that the server has counted, by field and outcome."""
        status, page = self.ask("GET", "/metrics")
        assert status == 200
        found = _HINTS.findall(page.decode())
        return Counter({(field, outcome): int(float(value)) for field, outcome, value in found})

    def sessions(self) -> dict[str, dict[str, Any]]:
        """Sessions that have an id, as the control routes show them."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        status, text = self.ask("GET", "/holdfast/v1/state?limit=200", headers)
        assert status == 200, text
        (engine,) = json.loads(text)["engines"]
        return {session["session_id"]: session for session in engine["sessions"]}
