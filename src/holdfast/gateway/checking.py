"""Checks requests of clients and reads what places them."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final, NamedTuple

from aiohttp import web

from holdfast.core.identity import Identity
from holdfast.core.json_nesting import nesting_depth
from holdfast.core.request_body import RequestBody
from holdfast.gateway.api import Route
from holdfast.gateway.gemini import GeminiCall, GeminiError, gemini_call_of, translated_request
from holdfast.gateway.headers import by_lower_name
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.prompt_path import (
    NO_PROMPT,
    PromptPath,
    identity_of,
    nests_deeper,
    place_of,
    with_salt,
)
from holdfast.gateway.refusal import Refusal
from holdfast.gateway.request_policies import RequestPolicies
from holdfast.gateway.settings import GatewayLimits
from holdfast.gateway.tenants import ApiKeys
from holdfast.policies.requests import Request

__all__ = ["Call", "RequestChecker"]

_CHAT: Final = "/v1/chat/completions"


class Call(NamedTuple):
    """A request that passed all checks.

    Attributes:
        route: Its route.
        body: What to send.
        tenant: Whose key it has; "" without keys.
        session_id: Explicit id of its stream, unique among tenants; None without one.
        path: Its prompt; empty where it computes none.
        answer_id: An earlier answer that only its engine knows; None if it names none.
        gemini: What it asked for in Gemini's API; None in the engines' own.
        engine_path: Path on the engine; None if it is the client's.
        request: What request policies see of it; None without policies or a prompt.
        prompt: What is sent of it, with who sends it; None without a prompt.
    """

    route: Route
    body: bytes
    tenant: str
    session_id: str | None
    path: PromptPath
    answer_id: str | None
    gemini: GeminiCall | None = None
    engine_path: str | None = None
    request: Request | None = None
    prompt: tuple[RequestBody, Identity] | None = None


class RequestChecker:
    """Refuses requests that may not pass, and reads those that may.

    Args:
        keys: API keys of clients.
        limits: What a request may ask.
        metrics: Takes the time of decisions.
        policies: May refuse or rewrite what passes.
    """

    def __init__(
        self,
        keys: ApiKeys,
        limits: GatewayLimits,
        metrics: GatewayMetrics,
        policies: RequestPolicies,
    ) -> None:
        self._keys = keys
        self._limits = limits
        self._metrics = metrics
        self._policies = policies

    async def checked(self, request: web.Request, route: Route | None) -> Call:
        """Receive a request and check it.

        Raises:
            Refusal: It may not pass.
        """
        if route is None:
            raise Refusal(404, f"{request.path} does not exist here")
        tenant = self._keys.tenant_of(request.headers)
        if tenant is None:
            raise Refusal(
                401, "no valid API key: send it as a bearer token, x-api-key or x-goog-api-key"
            )
        if request.method not in route.methods:
            allowed = ", ".join(sorted(route.methods))
            raise Refusal(405, f"{request.path} takes {allowed}, not {request.method}")
        text = await self._received(request)
        began_s = monotonic()
        body = RequestBody.parse(text)
        most = self._limits.nesting
        is_deep = nesting_depth(text) > most if body is None else nests_deeper(body, most)
        if is_deep:
            raise Refusal(400, f"the body is nested deeper than {most} levels; flatten it")
        if route.dialect == "gemini":
            call = self._translated(request, route, text, tenant)
        else:
            call = self._read(request, route, text, body, tenant, request.path)
        self._metrics.decision_s.observe(monotonic() - began_s)
        return call

    async def _received(self, request: web.Request) -> bytes:
        """The body, decompressed.

        The `read` of aiohttp would keep it as long as the request.
        """
        most = self._limits.body_bytes
        chunks: list[bytes] = []
        num_bytes = 0
        try:
            async with asyncio.timeout(self._limits.receive_s):
                async for chunk in request.content.iter_any():
                    num_bytes += len(chunk)
                    if num_bytes > most:
                        raise Refusal(413, f"the body is longer than {most >> 20} MiB")
                    chunks.append(chunk)
        except TimeoutError:
            seconds = self._limits.receive_s
            raise Refusal(408, f"the request did not arrive within {seconds:g} s") from None
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _translated(self, request: web.Request, route: Route, text: bytes, tenant: str) -> Call:
        gemini = gemini_call_of(request.path)
        if gemini is None:
            raise Refusal(404, f"{request.path} does not exist here")
        if gemini.action == "streamGenerateContent" and request.query.get("alt") != "sse":
            raise Refusal(400, "a stream is given as server-sent events only: add ?alt=sse")
        try:
            translated = translated_request(gemini, text)
        except GeminiError as error:
            raise Refusal(400, str(error)) from None
        if gemini.action == "countTokens":
            return Call(route, translated, tenant, None, NO_PROMPT, None, gemini, "/tokenize")
        body = RequestBody.parse(translated)
        call = self._read(request, route, translated, body, tenant, _CHAT)
        return call._replace(gemini=gemini, engine_path=_CHAT)

    def _read(
        self,
        request: web.Request,
        route: Route,
        text: bytes,
        body: RequestBody | None,
        tenant: str,
        engine_path: str,
    ) -> Call:
        if tenant and body is not None and _names_hosts(body.value("kv_transfer_params")):
            raise Refusal(400, "kv_transfer_params name other engines; only operators may do that")
        identity = identity_of(by_lower_name(request.headers), body, tenant)
        answer_id = request.path.split("/")[3] if route.path == "/v1/responses/*" else None
        path: PromptPath = NO_PROMPT
        seen: Request | None = None
        prompt: tuple[RequestBody, Identity] | None = None
        if body is None:
            if tenant and route.uses_cache:
                raise Refusal(400, "the body is no JSON object in UTF-8")  # it could have a salt
        elif route.is_generation:
            if self._policies:
                seen = self._policies.passed(Request(engine_path, body, identity, monotonic()))
                body = seen.body
            path, answer_id, text = place_of(body, tenant)
            prompt = body, identity
        elif tenant and route.uses_cache:
            text = with_salt(body, tenant)
        return Call(
            *(route, text, tenant, identity.group, path, answer_id), request=seen, prompt=prompt
        )


def _names_hosts(transfer: object) -> bool:
    """Whether transfer parameters make an engine connect to a client's choice."""
    return isinstance(transfer, dict) and any(
        key.startswith(("remote_", "do_remote_")) for key in transfer
    )
