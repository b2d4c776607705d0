"""Forwards one request to the engine of its session, and the answer byte for byte."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from holdfast.core.tenants import Fairness
from holdfast.errors import EndpointError
from holdfast.gateway.answer_events import UnreadableAnswerError
from holdfast.gateway.answer_judging import AnswerJudging, FilterChain
from holdfast.gateway.answer_tail import AnswerTail, has_first_token, read_tail
from holdfast.gateway.api import Route, error_body, route_of
from holdfast.gateway.checking import Call, RequestChecker
from holdfast.gateway.dispatch import DEFAULT_ADMISSION, Dispatcher
from holdfast.gateway.engines import Engine
from holdfast.gateway.gemini_answers import translator_of
from holdfast.gateway.headers import RECEIPT, answer_headers, request_headers
from holdfast.gateway.kv_events import engine_session_id
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.placement import Placement
from holdfast.gateway.refusal import Refusal
from holdfast.gateway.request_policies import RequestPolicies
from holdfast.gateway.settings import GatewayLimits
from holdfast.gateway.shared_origins import Origin, SharedOrigins
from holdfast.gateway.streams import PassedBytes, break_off, has_left, payload_of
from holdfast.gateway.tenants import ApiKeys
from holdfast.policies.requests import AnswerEnded, Request, RequestClosed, RequestSent
from holdfast.policies.routing import RoutingPolicy

__all__ = ["Forwarder"]

logger = logging.getLogger(__name__)

_MOST_ANSWERS: Final = 100_000
_CLIENT_LEFT: Final = 499  # is not sent
_ANSWER_ID = re.compile(rb'"id"\s*:\s*"(resp_[\w.-]{1,128})"')
_UNREACHED = (aiohttp.ClientConnectionError, ConnectionError)
_BROKEN = (aiohttp.ClientError, ConnectionError, TimeoutError)


class Forwarder:
    """Handles every request of clients.

    Args:
        engines: The engines.
        client: Sends to them.
        keys: API keys of clients.
        limits: What a request may ask.
        metrics: Counts.
        policies: What they may change about requests.
        routing: Chooses engines.
        admission: Name of the policy that admits turns to engines.
        fairness: How tenants share the engines.
        engine_key: Bearer token for the engines; None passes the client's.
        origins: What other gateways know; None if there is no other.

    Attributes:
        dispatcher: Decides where requests go, and when.
        metrics: See the argument.
        policies: See the argument.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        client: aiohttp.ClientSession,
        keys: ApiKeys,
        limits: GatewayLimits,
        metrics: GatewayMetrics,
        policies: RequestPolicies,
        routing: RoutingPolicy,
        admission: str = DEFAULT_ADMISSION,
        fairness: Fairness | None = None,
        engine_key: str | None = None,
        origins: SharedOrigins | None = None,
    ) -> None:
        self._by_name = {engine.name: engine for engine in engines}
        self._origins = origins
        self.dispatcher = Dispatcher(
            *(engines, limits.lease_s, limits.max_wait_ratio, routing, admission),
            fairness=fairness,
            on_failure=partial(self._admission_failed, admission),
        )
        for engine in engines:
            metrics.watch_held(engine.name, partial(self.dispatcher.held, engine))
        self._client = client
        self._checker = RequestChecker(keys, limits, metrics, policies)
        self._judging = AnswerJudging(policies, metrics)
        self.policies, self.metrics = policies, metrics
        self._engine_key = engine_key
        self._answered_by: OrderedDict[str, tuple[Engine, str]] = OrderedDict()  # and tenant
        self._numbers = itertools.count()
        self._held: dict[str, asyncio.Future[None]] = {}
        self._next_look: asyncio.TimerHandle | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        route = route_of(request.path)
        try:
            call = await self._checker.checked(request, route)
            try:
                return await self._forward(request, call)
            finally:
                if call.request is not None:
                    self.policies.observe(RequestClosed(call.request, monotonic()))
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
        failed: list[Engine] = []
        told = await self._told(call)
        while True:
            sent = self._place(call, failed, told)
            engine = sent.engine
            try:
                with sent:
                    await self._admitted(sent)
                    self._observe_sent(call, sent)
                    async with self._client.request(
                        request.method,
                        URL(engine.url + (call.engine_path or request.raw_path), encoded=True),
                        headers=self._headers(request, call, sent),
                        data=payload_of(call.body),
                        allow_redirects=False,
                    ) as answer:
                        call = call._replace(body=b"")  # long answers need not keep it
                        return await self._pass_on(request, call, answer, sent)
            except aiohttp.SocketTimeoutError:
                raise Refusal(504, f"engine {engine.name} did not answer in time") from None
            except _UNREACHED as error:
                if sent.has_answered:
                    raise
                if isinstance(error, TimeoutError):
                    self._pass_by(engine)
                else:
                    self.engine_lost(engine)
                failed.append(engine)
                self.metrics.retries.labels(engine.name).inc()

    async def _told(self, call: Call) -> tuple[Engine, int] | None:
        """Where another gateway sent the session last, and the bytes of that prompt."""
        if self._origins is None or not call.path:
            return None
        leaves = [piece.key for piece in reversed(call.path)]
        found = await self._origins.find(leaves if call.session_id is None else [call.session_id])
        engine = None if found is None else self._by_name.get(found.engine)
        return None if found is None or engine is None else (engine, found.num_bytes)

    def _place(
        self, call: Call, failed: Sequence[Engine], told: tuple[Engine, int] | None
    ) -> _Sent:
        request_id = str(next(self._numbers))
        where, owner = self._answered_by.get(call.answer_id or "", (None, call.tenant))
        if owner != call.tenant:
            raise Refusal(404, f"there is no answer {call.answer_id}")
        try:
            placement = self.dispatcher.place(
                *(request_id, call.session_id, call.path, monotonic()),
                tenant=call.tenant,
                without=failed,
                where=where,
                told=told,
            )
        except EndpointError as error:
            raise Refusal(503, str(error)) from None
        self.metrics.placements.labels(placement.engine.name, placement.reason).inc()
        if call.path and not failed:
            self.metrics.prompts.sent()
            if call.changed is not None:
                kind, client, lost_bytes = call.changed
                num_tokens = lost_bytes / placement.engine.bytes_per_token
                self.metrics.prompts.lost(kind, client, num_tokens)
        if self._origins is not None and call.path:
            key = call.session_id if call.session_id is not None else call.path[-1].key
            self._origins.note(key, Origin(placement.engine.name, placement.session.num_bytes))
        return _Sent(request_id, placement, self, call.request)

    def _headers(self, request: web.Request, call: Call, sent: _Sent) -> CIMultiDict[str]:
        """The headers for an engine; where it reports KV events, they name the session."""
        session_id = None
        if sent.engine.events is not None:
            session_id = engine_session_id(sent.placement.session.key)
        own = session_id, sent.placement.elsewhere_ratio
        headers = request_headers(
            request.headers.items(), self._engine_key, *own, is_tenants=bool(call.tenant)
        )
        if call.gemini is not None or self._judging.is_asked(call):
            headers["Accept-Encoding"] = "identity"  # to be translated, or judged
        return headers

    def _observe_sent(self, call: Call, sent: _Sent) -> None:
        if call.request is not None:
            num_bytes = sum(piece.num_bytes for piece in call.path)
            missing_bytes = sent.placement.missing_bytes
            self.policies.observe(RequestSent(call.request, monotonic(), num_bytes, missing_bytes))

    async def _admitted(self, sent: _Sent) -> None:
        """Wait until the engine has space for the request's session."""
        held = self._held[sent.request_id] = asyncio.get_running_loop().create_future()
        began_s = monotonic()
        try:
            self.look()
            await held
        finally:
            self._held.pop(sent.request_id, None)
            self.metrics.held_s.observe(monotonic() - began_s)

    def look(self) -> None:
        """Let requests go that may; look again soon while others are held. Mutates."""
        now_s = monotonic()
        for request_id in self.dispatcher.take(now_s):
            held = self._held.get(request_id)
            if held is not None and not held.done():
                held.set_result(None)
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        next_s = self.dispatcher.next_s(now_s)
        if next_s < math.inf:
            loop = asyncio.get_running_loop()
            self._next_look = loop.call_later(next_s - now_s, self.look)

    def _admission_failed(self, name: str) -> None:
        self.metrics.policy_actions.labels(name, "failed").inc()
        logger.exception("policy %s failed; no turn is held until the gateway restarts", name)

    def engine_lost(self, engine: Engine) -> None:
        """Take in that an engine cannot be reached; what it held is lost. Mutates."""
        self._pass_by(engine)
        self.engine_restarted(engine)

    def _pass_by(self, engine: Engine) -> None:
        """Send nothing to an engine before it answers a probe. Mutates.

        A busy one keeps what it holds.
        """
        if engine.is_up:
            logger.warning("engine %s does not answer; its sessions go elsewhere", engine.name)
        engine.is_up = False

    def engine_restarted(self, engine: Engine) -> None:
        """Take in that an engine's cache is empty. Mutates."""
        self.dispatcher.lost(engine)
        self.look()

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
        response.headers[RECEIPT] = f"{engine.name}; reason={sent.placement.reason}"
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
        except _BROKEN:
            if has_left(request):
                raise
            self.metrics.broken.labels(engine.name).inc()
            self.engine_lost(engine)
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
            self._answered_by[found[1].decode()] = sent.engine, call.tenant
            if len(self._answered_by) > _MOST_ANSWERS:
                self._answered_by.popitem(last=False)
        if not call.path:
            return
        sent.tail = tail = read_tail(end)
        if tail.prompt_tokens:
            num_bytes = sum(piece.num_bytes for piece in call.path)
            self.dispatcher.learn_tokens(sent.engine, num_bytes, tail.prompt_tokens)

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
        request_id: Its id for the dispatcher.
        placement: Where it goes.
        forwarder: Who sends it.
        request: What request policies see of it; None without them.

    Attributes:
        request_id: See the argument.
        placement: See the argument.
        has_answered: Whether the engine has begun to answer.
        has_started: Whether it has given the first token.
        tail: What the end of the answer says.
    """

    def __init__(
        self,
        request_id: str,
        placement: Placement,
        forwarder: Forwarder,
        request: Request | None,
    ) -> None:
        self.request_id = request_id
        self.placement = placement
        self.has_answered = self.has_started = False
        self.tail = AnswerTail(None, None, None)
        self._forwarder = forwarder
        self._request = request

    @property
    def engine(self) -> Engine:
        """Where it goes."""
        return self.placement.engine

    def __enter__(self) -> None:
        self._sent_s = monotonic()
        self._forwarder.metrics.in_flight.labels(self.engine.name).inc()

    def started(self) -> None:
        """Take in the first token: the prompt is computed. Mutates."""
        self.has_started = True
        now_s = monotonic()
        self._forwarder.dispatcher.started(self.request_id, now_s)
        self._forwarder.metrics.first_byte_s.observe(now_s - self._sent_s)
        self._forwarder.look()

    def __exit__(self, *exc_info: object) -> None:
        self._forwarder.metrics.in_flight.labels(self.engine.name).dec()
        tail = self.tail
        now_s = monotonic()
        self._forwarder.dispatcher.ended(self.request_id, now_s, tail.output_tokens, tail.end)
        if self._request is not None:
            ended = AnswerEnded(self._request, now_s, tail.prompt_tokens, tail.output_tokens)
            self._forwarder.policies.observe(ended)
        self._forwarder.look()
