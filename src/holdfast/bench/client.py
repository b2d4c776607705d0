"""Streamed, timed completions on an OpenAI-compatible endpoint.

Failures of the endpoint are outcomes, not exceptions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import aiohttp
import msgspec

from holdfast.core.results import ErrorKind
from holdfast.errors import EndpointError

__all__ = ["Client", "Completion", "CompletionRequest", "Timeouts"]

# Servers close idle connections (vLLM after 5 s); a request sent at that moment is lost.
_KEEP_ALIVE_S = 2.0
# Longest SSE line to read; aiohttp refuses lines beyond its buffer.
_LINE_LIMIT_BYTES = 1 << 20
_ERROR_TEXT_CHARS = 300
_DRAIN_TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits of an endpoint.

    Attributes:
        connect_s: Longest wait for a connection.
        stall_s: Longest silence after the request is sent, also before the first token, which
            takes minutes on a thrashing engine.
    """

    connect_s: float = 10.0
    stall_s: float = 900.0


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A completion to ask for.

    Attributes:
        prompt: Token ids.
        output_tokens: Exact length of the answer.
        extra: Further fields of the body.
    """

    prompt: list[int]
    output_tokens: int
    extra: Mapping[str, Any]


@dataclass(slots=True)
class Completion:
    """An answer; times are `time.monotonic` seconds.

    Attributes:
        sent_s: When the request was sent.
        first_token_s: When the first token arrived; None without one.
        last_token_s: When the answer ended; None if it broke off.
        num_chunks: Chunks with a token in them.
        prompt_tokens: As counted by the engine.
        output_tokens: As counted by the engine.
        cached_tokens: As counted by the engine; None where it does not report them.
        error_kind: None when the answer is complete.
        error: The error in words.
    """

    sent_s: float
    first_token_s: float | None = None
    last_token_s: float | None = None
    num_chunks: int = 0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    error_kind: ErrorKind | None = None
    error: str | None = None

    def fail(self, kind: ErrorKind, error: str) -> None:
        """Mark the answer as failed; its end is then unknown."""
        self.error_kind = kind
        self.error = error[:_ERROR_TEXT_CHARS]
        self.last_token_s = None


class _TokenDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _TokenDetails | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class Client:
    """Connections to one endpoint, as an async context manager that closes them."""

    def __init__(self, url: str, *, timeouts: Timeouts | None = None) -> None:
        timeouts = timeouts or Timeouts()
        self.url = url.rstrip("/").removesuffix("/v1")
        self._completions_url = f"{self.url}/v1/completions"
        self._timeouts = timeouts
        self._session: aiohttp.ClientSession | None = None
        self._decoder = msgspec.json.Decoder(_Chunk)
        self._encoder = msgspec.json.Encoder()

    async def __aenter__(self) -> Client:
        timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=self._timeouts.connect_s,
            sock_read=self._timeouts.stall_s,
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=timeout,
            read_bufsize=_LINE_LIMIT_BYTES,
            headers={"Content-Type": "application/json"},
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def http(self) -> aiohttp.ClientSession:
        """The open session; valid only inside the context."""
        if self._session is None:
            raise RuntimeError("the client is used outside its context")
        return self._session

    async def model_name(self) -> str:
        """Ask the endpoint for its models; returns the first one.

        Raises:
            EndpointError: The endpoint cannot be reached, or lists no model.
        """
        url = f"{self.url}/v1/models"
        short = aiohttp.ClientTimeout(total=self._timeouts.connect_s + 20.0)
        try:
            async with self.http.get(url, timeout=short) as response:
                body = await response.read()
                if response.status != 200:
                    raise EndpointError(
                        f"{url} answered {response.status}: {_text(body)}",
                        hint="give the model's name with --model if the endpoint lists none",
                    )
            models = msgspec.json.decode(body, type=_Models).data
        except msgspec.MsgspecError as error:
            raise EndpointError(f"{url} did not answer with a list of models") from error
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise EndpointError(
                f"cannot reach {url}: {_reason(error)}",
                hint="is an OpenAI-compatible engine running there?",
            ) from error
        if not models:
            raise EndpointError(f"{url} lists no model", hint="give its name with --model")
        return models[0].id

    def encode(self, request: CompletionRequest, model: str) -> bytes:
        """Encode a request's body; pure."""
        body = {
            "model": model,
            "prompt": request.prompt,
            "max_tokens": request.output_tokens,
            "min_tokens": request.output_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return self._encoder.encode(body | dict(request.extra))

    async def complete(
        self, body: bytes, headers: Mapping[str, str], completion: Completion
    ) -> None:
        """Send an encoded body and read the answer; an endpoint's failures never raise.

        Args:
            body: From `encode`.
            headers: Sent besides the usual ones.
            completion: Filled as the answer arrives; stays valid if the call is cancelled.
        """
        completion.sent_s = monotonic()
        try:
            async with self.http.post(
                self._completions_url, data=body, headers=headers
            ) as response:
                if response.status != 200:
                    text = _text(await response.content.read(4 * _ERROR_TEXT_CHARS))
                    completion.fail("http_status", f"{response.status}: {text}")
                    return
                await self._follow(response.content, completion)
        except asyncio.CancelledError:
            completion.fail("cancelled", "the run was stopped")
            raise
        except TimeoutError as error:
            kind: ErrorKind = (
                "connect" if isinstance(error, aiohttp.ConnectionTimeoutError) else "stalled"
            )
            completion.fail(kind, f"nothing arrived in time: {_reason(error)}")
        except aiohttp.ClientConnectorError as error:
            completion.fail("connect", _reason(error))
        except (aiohttp.ClientError, ConnectionError) as error:
            completion.fail("disconnected", _reason(error))
        except (ValueError, msgspec.MsgspecError) as error:
            completion.fail("malformed", _reason(error))

    async def _follow(self, lines: aiohttp.StreamReader, completion: Completion) -> None:
        while line := await lines.readline():
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                if completion.num_chunks == 0:
                    completion.fail("incomplete", "the answer ended without a token")
                await _drain(lines)
                return
            chunk = self._decoder.decode(data)
            if chunk.error is not None:
                completion.fail("http_status", _text(msgspec.json.encode(chunk.error)))
                return
            _take(chunk, completion)
        completion.fail("incomplete", "the answer ended without its end marker")


async def _drain(lines: aiohttp.StreamReader) -> None:
    """Read to the end of the body, so that the connection can be used again."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_DRAIN_TIMEOUT_S):
            await lines.read()


def _take(chunk: _Chunk, completion: Completion) -> None:
    if chunk.choices:
        completion.last_token_s = monotonic()
        completion.num_chunks += 1
        if completion.first_token_s is None:
            completion.first_token_s = completion.last_token_s
    if chunk.usage is not None:
        completion.prompt_tokens = chunk.usage.prompt_tokens
        completion.output_tokens = chunk.usage.completion_tokens
        if not completion.num_chunks and chunk.usage.completion_tokens:
            # Only the usage reports tokens without text, such as a lone special token.
            completion.num_chunks = chunk.usage.completion_tokens
            completion.first_token_s = completion.last_token_s = monotonic()
        details = chunk.usage.prompt_tokens_details
        completion.cached_tokens = None if details is None else details.cached_tokens


def _text(body: bytes) -> str:
    return body.decode("utf-8", errors="replace").strip()[:_ERROR_TEXT_CHARS]


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
