"""Forwards one request to the engine of its session, and the answer byte for byte."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from time import monotonic
from typing import Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from holdfast.gateway.answer_events import UnreadableAnswerError
from holdfast.gateway.answer_judging import AnswerJudging, FilterChain
from holdfast.gateway.answer_tail import AnswerTail, has_first_token, read_tail
from holdfast.gateway.api import Route, error_body, route_of
from holdfast.gateway.checking import Call, RequestChecker
from holdfast.gateway.coordinator import Asked, Coordinator, Placed
from holdfast.gateway.engines import Engine
from holdfast.gateway.gemini_answers import translator_of
from holdfast.gateway.headers import RECEIPT, answer_headers, request_headers
from holdfast.gateway.kv_events import engine_session_id
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.prompt_changes import PromptChanges, SentPrompt
from holdfast.gateway.refusal import Refusal
from holdfast.gateway.request_policies import RequestPolicies
from holdfast.gateway.settings import GatewayLimits
from holdfast.gateway.streams import PassedBytes, break_off, drop_frames, has_left, payload_of
from holdfast.gateway.tenants import ApiKeys
from holdfast.policies.requests import AnswerEnded, Request, RequestClosed, RequestSent

__all__ = ["Forwarder"]

_CLIENT_LEFT: Final = 499  # is not sent
_ANSWER_ID = re.compile(rb'"id"\s*:\s*"(resp_[\w.-]{1,128})"')
_UNREACHED = (aiohttp.ClientConnectionError, ConnectionError)
_BROKEN = (aiohttp.ClientError, ConnectionError, TimeoutError)


class Forwarder:
    """Handles every request of clients.

    Args:
        client: Sends to the engines.
        keys: API keys of clients.
        limits: What a request may ask.
        metrics: Counts.
        policies: What they may change about requests.
        coordinator: Decides where requests go, and when.
        engine_key: Bearer token for the engines; None passes the client's.

    Attributes:
        metrics: See the argument.
        policies: See the argument.
        coordinator: See the argument.
        changes: Compares prompts that were sent.
    """

    def __init__(
        self,
        client: aiohttp.ClientSession,
        keys: ApiKeys,
        limits: GatewayLimits,
        metrics: GatewayMetrics,
        policies: RequestPolicies,
        coordinator: Coordinator,
        engine_key: str | None = None,
    ) -> None:
        self._client = client
        self._checker = RequestChecker(keys, limits, metrics, policies)
        self._judging = AnswerJudging(policies, metrics)
        self.changes = PromptChanges(metrics.prompts, limits.lease_s)
        self.policies, self.metrics, self.coordinator = policies, metrics, coordinator
        self._engine_key = engine_key

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        route = route_of(request.path)
        try:
            call = await self._checker.checked(request, route)
            seen, forwarded = call.request, self._forward(request, call)
            del call  # which the answer outlives
            try:
                return await forwarded
            finally:
                if seen is not None:
                    self.policies.observe(RequestClosed(seen, monotonic()))
        except Refusal as refusal:
            return self._refuse(route, refusal)
        except asyncio.CancelledError:
            self.metrics.disconnects.inc()
            raise
        except ConnectionError:
            if request.transport is not None and not request.transport.is_closing():
                raise
            self.metrics.disconnects.inc()  # seen by a write, before the server cancels
            return web.Response(status=_CLIENT_LEFT)

    # Forward.

    async def _forward(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Send to one engine after the other until one begins to answer."""
        failed: list[str] = []
        while True:
            sent = await self._place(call, failed)
            engine = sent.engine
            try:
                with sent:
                    await self.coordinator.admitted(sent.placed)
                    self._observe_sent(call, sent, is_again=bool(failed))
                    async with self._client.request(
                        request.method,
                        URL(engine.url + (call.engine_path or request.raw_path), encoded=True),
                        headers=self._headers(request, call, sent),
                        data=payload_of(call.body),
                        allow_redirects=False,
                    ) as answer:
                        call = call._replace(body=b"", prompt=None)  # long answers need neither
                        return await self._pass_on(request, call, answer, sent)
            except aiohttp.SocketTimeoutError:
                raise Refusal(504, f"engine {engine.name} did not answer in time") from None
            except _UNREACHED as error:
                if sent.has_answered:
                    raise
                drop_frames(error)
                if isinstance(error, TimeoutError):
                    self.coordinator.pass_by(engine)
                else:
                    self.coordinator.lost(engine)
                failed.append(engine.name)
                self.metrics.retries.labels(engine.name).inc()

    async def _place(self, call: Call, failed: Sequence[str]) -> _Sent:
        placed = await self.coordinator.place(
            Asked(
                *(call.session_id, call.path, call.tenant, call.answer_id),
                *(tuple(failed), call.body),
            )
        )
        self.metrics.placements.labels(placed.engine.name, placed.reason).inc()
        return _Sent(placed, self, call.request)

    def _headers(self, request: web.Request, call: Call, sent: _Sent) -> CIMultiDict[str]:
        """The headers for an engine; where it reports KV events, they name the session."""
        session_id = None
        if sent.engine.events is not None:
            session_id = engine_session_id(sent.placed.session_key)
        own = session_id, sent.placed.elsewhere_ratio
        headers = request_headers(
            request.headers.items(), self._engine_key, *own, is_tenants=bool(call.tenant)
        )
        if call.gemini is not None or self._judging.is_asked(call):
            headers["Accept-Encoding"] = "identity"  # to be translated, or judged
        return headers

    def _observe_sent(self, call: Call, sent: _Sent, *, is_again: bool) -> None:
        now_s = monotonic()
        if call.prompt is not None and call.path and not is_again:
            self.changes.add(SentPrompt(*call.prompt, sent.engine.bytes_per_token, now_s))
        if call.request is not None:
            sizes = call.path.num_bytes, sent.placed.missing_bytes
            self.policies.observe(RequestSent(call.request, now_s, *sizes))

    async def _pass_on(
        self,
        request: web.Request,
        call: Call,
        answer: aiohttp.ClientResponse,
        sent: _Sent,
    ) -> web.StreamResponse:
        sent.has_answered = True
        engine = sent.engine
        response = web.StreamResponse(
            status=answer.status,
            reason=answer.reason,
            headers=answer_headers(answer.headers.items()),
        )
        response.headers[RECEIPT] = f"{engine.name}; reason={sent.placed.reason}"
        translator = None if call.gemini is None else translator_of(call.gemini, answer.status)
        judged = self._judging.filter_of(call, request, answer.status, answer.headers)
        if judged is not None:
            translator = judged if translator is None else FilterChain(judged, translator)
        if translator is not None:
            response.headers.pop("Content-Length", None)
        await response.prepare(request)
        passed = PassedBytes()
        try:
            with passed.all_may_leave(request):
                async for chunk in answer.content.iter_any():
                    await response.write(chunk if translator is None else translator.feed(chunk))
                    if not sent.has_started and has_first_token(chunk):
                        sent.started()
                    passed.add(chunk)
                await response.write_eof(b"" if translator is None else translator.end())
        except _BROKEN as error:
            if has_left(request):
                raise
            drop_frames(error)
            self.metrics.broken.labels(engine.name).inc()
            self.coordinator.lost(engine)
            message = f"engine {engine.name} stopped before the answer was complete; send it again"
            await break_off(request, response, call.route.dialect, passed.end, message)
            return response
        except UnreadableAnswerError as error:
            self._judging.unreadable()
            message = f"{error}, so its tool calls cannot be judged; the rest of it is not given"
            await break_off(request, response, call.route.dialect, b"", message)
            return response
        self._learn(call, sent, passed.begin, passed.end)
        self.metrics.answers.labels(engine.name, f"{answer.status // 100}xx").inc()
        return response

    def _learn(self, call: Call, sent: _Sent, begin: bytes, end: bytes) -> None:
        """Learn which engine knows an answer, how long it is, and what ended it. Mutates."""
        if call.route.dialect == "responses" and (found := _ANSWER_ID.search(begin)):
            self.coordinator.answered(found[1].decode(), sent.engine, call.tenant)
        if not call.path:
            return
        sent.tail = tail = read_tail(end)
        if tail.prompt_tokens:
            self.coordinator.learn_tokens(sent.engine, call.path.num_bytes, tail.prompt_tokens)

    def _refuse(self, route: Route | None, refusal: Refusal) -> web.Response:
        status = refusal.status
        self.metrics.answers.labels("", f"{status // 100}xx").inc()
        body = error_body("openai" if route is None else route.dialect, status, str(refusal))
        answer = web.Response(status=status, body=body, content_type="application/json")
        if refusal.retry_after_s is not None:
            answer.headers["Retry-After"] = str(math.ceil(refusal.retry_after_s))
        return answer


class _Sent:
    """A request on its engine, from its placement to the end of its answer.

    Args:
        placed: Where it goes.
        forwarder: Who sends it.
        request: What request policies see of it; None without them.

    Attributes:
        placed: See the argument.
        has_answered: Whether the engine has begun to answer.
        has_started: Whether it has given the first token.
        tail: What the end of the answer says.
    """

    def __init__(self, placed: Placed, forwarder: Forwarder, request: Request | None) -> None:
        self.placed = placed
        self.has_answered = self.has_started = False
        self.tail = AnswerTail(None, None, None)
        self._forwarder = forwarder
        self._request = request

    @property
    def engine(self) -> Engine:
        """Where it goes."""
        return self.placed.engine

    def __enter__(self) -> None:
        self._sent_s = monotonic()
        self._forwarder.metrics.in_flight.labels(self.engine.name).inc()

    def started(self) -> None:
        """Take in the first token: the prompt is computed. Mutates."""
        self.has_started = True
        self._forwarder.metrics.first_byte_s.observe(monotonic() - self._sent_s)
        self._forwarder.coordinator.started(self.placed)

    def __exit__(self, *exc_info: object) -> None:
        self._forwarder.metrics.in_flight.labels(self.engine.name).dec()
        tail = self.tail
        if self._request is not None:
            ended = AnswerEnded(self._request, monotonic(), tail.prompt_tokens, tail.output_tokens)
            self._forwarder.policies.observe(ended)
        self._forwarder.coordinator.ended(self.placed, tail)
