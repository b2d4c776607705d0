"""Puts a filter before each answer that may call tools, if policies judge."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from aiohttp import web

from holdfast.core.identity import Identity
from holdfast.core.request_body import RequestBody
from holdfast.gateway.answer_filter import AnswerFilter, BodyFilter, StreamFilter
from holdfast.gateway.answer_filter_chat import ChatStream, edit_chat
from holdfast.gateway.answer_filter_messages import MessagesStream, edit_message
from holdfast.gateway.answer_filter_responses import ResponsesStream, edit_response
from holdfast.gateway.call_judge import CallJudge, Decided
from holdfast.gateway.checking import Call
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.refusal import Refusal
from holdfast.gateway.request_policies import RequestPolicies
from holdfast.policies.requests import Request

__all__ = ["AnswerJudging", "FilterChain"]

_STORED: Final = "/v1/responses/*"
_MOST_ANSWERS: Final = 100_000
_NOTHING: Final = RequestBody(b"{}", {})
_CHAT: Final = (ChatStream, edit_chat)
_FILTERS: Final[dict[str, tuple[type[StreamFilter], Callable[[Any, CallJudge], bool]]]] = {
    "/v1/chat/completions": _CHAT,
    "/v1/completions": _CHAT,
    "/v1beta/models/*": _CHAT,  # Gemini's, before it is translated
    "/v1/messages": (MessagesStream, edit_message),
    "/v1/responses": (ResponsesStream, edit_response),
    _STORED: (ResponsesStream, edit_response),
}


class _Stored(NamedTuple):
    """An answer that may be asked for again: its client, and what was decided."""

    identity: Identity
    decided: Decided


class FilterChain:
    """Two filters, one after the other.

    Args:
        first: Takes in the engine's bytes.
        second: Takes in what the first passes on.
    """

    def __init__(self, first: AnswerFilter, second: AnswerFilter) -> None:
        self._first = first
        self._second = second

    def feed(self, chunk: bytes) -> bytes:
        """Take in a part of the answer; return what can be sent. Mutates."""
        return self._second.feed(self._first.feed(chunk))

    def end(self) -> bytes:
        """Return the rest. Mutates."""
        return self._second.feed(self._first.end()) + self._second.end()


class AnswerJudging:
    """Makes the filters of answers.

    Args:
        policies: Judge the calls.
        metrics: Counts what cannot be judged.
    """

    def __init__(self, policies: RequestPolicies, metrics: GatewayMetrics) -> None:
        self._policies = policies
        self._metrics = metrics
        self._stored: OrderedDict[str, _Stored] = OrderedDict()

    def filter_of(
        self, call: Call, request: web.Request, status: int, headers: Mapping[str, str]
    ) -> AnswerFilter | None:
        """What an answer has to pass; None if it passes as it is. Pure.

        Args:
            call: What is answered.
            request: As the client sent it.
            status: Of the engine's answer.
            headers: Of the engine's answer.

        Raises:
            Refusal: It cannot be judged, so that it is not given.
        """
        kinds = _FILTERS.get(call.route.path)
        is_counted = call.gemini is not None and call.gemini.action == "countTokens"
        if kinds is None or is_counted or status >= 400 or not self._policies.judges_calls:
            return None
        if headers.get("Content-Encoding", "identity") != "identity":
            raise self._cannot_judge(502, "the engine has compressed its answer", "compressed")
        judge = self._stored_judge(call, request) if call.route.path == _STORED else None
        if judge is None:
            seen = call.request or _unread(call)
            judge = CallJudge(self._policies, seen, self._metrics.unjudged, self._tell)
        stream, edit = kinds
        if "text/event-stream" in headers.get("Content-Type", ""):
            return stream(judge)
        return BodyFilter(judge, edit)

    def is_asked(self, call: Call) -> bool:
        """Whether the answer to a call will be judged. Pure."""
        return self._policies.judges_calls and call.route.path in _FILTERS

    def unreadable(self) -> None:
        """Count an answer that is cut because it cannot be read. Mutates the counts."""
        self._metrics.unjudged.labels("unreadable_answer").inc()

    def _stored_judge(self, call: Call, request: web.Request) -> CallJudge | None:
        """The judge of an answer that is asked for again.

        It knows whose the answer is, and what was decided about calls that are not new.
        """
        answer_id, _, action = request.path.removeprefix("/v1/responses/").partition("/")
        if request.method == "DELETE":
            return None  # it gives nothing
        if action not in ("", "cancel") or "starting_after" in request.query:
            text = "while tool calls are judged, a stored answer is given whole only"
            raise Refusal(400, f"{text}: ask for /v1/responses/{answer_id}")
        stored = self._stored.get(answer_id)
        if stored is None or stored.identity.tenant != call.tenant:
            text = f"there is no answer {answer_id} whose tool calls this gateway has judged"
            raise Refusal(404, text)
        seen = _unread(call, stored.identity)
        return CallJudge(self._policies, seen, self._metrics.unjudged, before=stored.decided)

    def _tell(self, answer_id: str, identity: Identity, decided: Decided) -> None:
        self._stored[answer_id] = _Stored(identity, decided)
        if len(self._stored) > _MOST_ANSWERS:
            self._stored.popitem(last=False)

    def _cannot_judge(self, status: int, message: str, reason: str) -> Refusal:
        self._metrics.unjudged.labels(reason).inc()
        return Refusal(status, f"{message}, so its tool calls cannot be judged")


def _unread(call: Call, identity: Identity | None = None) -> Request:
    """A request of which policies have seen nothing."""
    return Request(call.route.path, _NOTHING, identity or Identity(tenant=call.tenant), 0.0)
