"""A server that remembers requests and answers as an engine does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

__all__ = ["Recorded", "RecordingServer", "call_of", "recording_server"]

_PREFIX: Final = "x-holdfast-"

_CHAT: Final = {
    "id": "c",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
_CHUNK: Final = {
    "id": "c",
    "object": "chat.completion.chunk",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": None}],
}
_MESSAGE: Final = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "ok"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def ours(self) -> dict[str, str]:
        """Headers of ours, by the rest of their names in lower case."""
        named = {name.lower(): value for name, value in self.headers.items()}
        return {n.removeprefix(_PREFIX): v for n, v in named.items() if n.startswith(_PREFIX)}


@dataclass(slots=True)
class RecordingServer:
    """What a server got, and how it answers.

    Attributes:
        url: Its address.
        requests: In order of arrival.
        messages: What the model answers to chats, one after another; "ok" after the last.
        answers: Status and body of paths that are not answered as an engine does.
        redirects: Paths that lead to other URLs.
        barrier: Where set, model requests wait there for each other.
    """

    url: str
    requests: list[Recorded] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    barrier: threading.Barrier | None = None

    @property
    def turns(self) -> list[Recorded]:
        """Requests to the model."""
        return [request for request in self.requests if request.path.startswith("/v1/")]

    @property
    def commands(self) -> list[tuple[str, str, Any]]:
        """Method, path and body of requests to the control routes."""
        start = "/holdfast/v1"
        return [
            (request.method, request.path.removeprefix(start), request.body)
            for request in self.requests
            if request.path.startswith(start)
        ]


@contextmanager
def recording_server() -> Iterator[RecordingServer]:
    """Run a server for a block."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            content = self.rfile.read(length)
            body = json.loads(content) if content else None
            state.requests.append(Recorded(self.command, self.path, dict(self.headers), body))
            if self.path in state.redirects:
                self.send_response(307)
                self.send_header("Location", state.redirects[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if state.barrier is not None and self.path.startswith("/v1/"):
                state.barrier.wait(60)
            if body and body.get("stream"):
                self._answer(
                    200, "text/event-stream", f"data: {json.dumps(_CHUNK)}\n\ndata: [DONE]\n\n"
                )
                return
            status, answer = state.answers.get(self.path) or (200, _answer_to(self.path, state))
            self._answer(status, "application/json", json.dumps(answer))

        do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - names of http.server

        def _answer(self, status: int, kind: str, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state = RecordingServer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def _answer_to(path: str, state: RecordingServer) -> Any:
    if path.startswith("/v1/chat/completions"):
        if not state.messages:
            return _CHAT
        message = {"role": "assistant", "content": None} | state.messages.pop(0)
        return _CHAT | {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
    return _MESSAGE if path.startswith("/v1/messages") else {"outcome": "accepted"}


def call_of(tool: str, **arguments: Any) -> dict[str, Any]:
    """A model's message that calls a tool."""
    function = {"name": tool, "arguments": json.dumps(arguments)}
    return {"tool_calls": [{"id": f"call-{tool}", "type": "function", "function": function}]}
