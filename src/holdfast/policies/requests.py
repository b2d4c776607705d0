"""The contract of request policies: rewrite, refuse, judge tool calls.

A gateway asks them; the other policies decide inside an engine. The same rules hold: a policy
observes events and answers questions, questions change nothing, and the host carries out the
answers. A policy that raises is counted, logged once and set aside, and requests go on; one that is
mandatory stays, and what it cannot decide about is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from holdfast.core.identity import Identity
from holdfast.core.request_body import RequestBody
from holdfast.policies.spec import Configured
from holdfast.tool_calls.turn_end import ToolCall

__all__ = [
    *("AnswerEnded", "CallJudged", "Refused", "Request", "RequestClosed", "RequestEvent"),
    *("RequestPassed", "RequestPolicy", "RequestSent"),
    "ToolCall",
    "Verdict",
]


@dataclass(frozen=True, slots=True)
class Request:
    """A client's request, before it is placed on an engine.

    Attributes:
        path: The API's path, such as `/v1/messages`; Gemini's requests are chat completions.
        body: Its fields.
        identity: Who sends it; ids are unique within a tenant only.
        now_s: Time of its arrival (s, monotonic).
    """

    path: str
    body: RequestBody
    identity: Identity
    now_s: float


@dataclass(frozen=True, slots=True)
class RequestPassed:
    """No policy refuses a request; `RequestClosed` follows.

    Attributes:
        request: As all policies have left it.
    """

    request: Request


@dataclass(frozen=True, slots=True)
class RequestSent:
    """A request has left for an engine.

    Attributes:
        request: As it was sent.
        time_s: When (s, monotonic).
        num_bytes: Length of its prompt (bytes).
        missing_bytes: What of it the engine has to compute, as far as known (bytes).
    """

    request: Request
    time_s: float
    num_bytes: int
    missing_bytes: int


@dataclass(frozen=True, slots=True)
class AnswerEnded:
    """An answer is complete, or has broken off.

    Attributes:
        request: What it answers.
        time_s: When (s, monotonic).
        prompt_tokens: Length of the prompt; None if the answer does not say.
        output_tokens: Length of the answer; None if it does not say.
    """

    request: Request
    time_s: float
    prompt_tokens: int | None
    output_tokens: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is decided about a tool call.

    Attributes:
        action: Whether it passes, or is replaced by a text that says no, or by a question.
        rule: What decided, for the audit log.
        message: The text, for the client; "" where the call passes.
    """

    action: Literal["allow", "deny", "ask"]
    rule: str = ""
    message: str = ""

    @property
    def is_allowed(self) -> bool:
        """Whether the call passes."""
        return self.action == "allow"


@dataclass(frozen=True, slots=True)
class CallJudged:
    """A tool call of an answer has been judged, by all policies.

    Attributes:
        request: What is answered.
        call: The whole call.
        verdict: The first that is not to let it pass, or to let it pass.
        time_s: When (s, monotonic).
    """

    request: Request
    call: ToolCall
    verdict: Verdict
    time_s: float


@dataclass(frozen=True, slots=True)
class RequestClosed:
    """A request that passed is over: its client has the answer, an error, or has left.

    Attributes:
        request: The request.
        time_s: When (s, monotonic).
    """

    request: Request
    time_s: float


RequestEvent = RequestPassed | RequestSent | CallJudged | AnswerEnded | RequestClosed
"""What a request policy observes, in this order. A request that is sent again after an engine has
failed has several of `RequestSent` and `AnswerEnded`; one whose client leaves early may have none.
"""


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that is not sent; the client gets its API's own error.

    Attributes:
        message: What is refused and what to do, for the client.
        status: Status of the answer (400 to 599).
        retry_after_s: When the request may be sent again (s, >= 0); None if never as it is.
        rule: What decided, for the audit log.
    """

    message: str
    status: int = 403
    retry_after_s: float | None = None
    rule: str = ""


class RequestPolicy(Configured):
    """Decides about clients' requests; as it stands all pass unchanged.

    Attributes:
        judges_calls: Whether `judge` is asked: the gateway then holds back each tool call of a
            streamed answer until it is whole.
        is_mandatory: Whether nothing passes without it. What it fails to decide is refused; once it
            has failed to observe an event, so is every request until a restart.
    """

    judges_calls: ClassVar[bool] = False
    is_mandatory: ClassVar[bool] = False

    def observe(self, event: RequestEvent) -> None:
        """Take note of an event. Mutates the policy only."""

    def rewrite(self, request: Request) -> bytes | None:
        """The body to send instead of the request's; None leaves it as it is. Pure.

        Placement, and all policies after this one, see the new body.
        """
        del request
        return None

    def refuse(self, request: Request) -> Refused | None:
        """Why a request is not sent; None lets it pass. Pure."""
        del request
        return None

    def judge(self, request: Request, call: ToolCall) -> Verdict | None:
        """What is decided about a tool call of the answer; None has no opinion. Pure.

        Args:
            request: What is answered.
            call: The whole call, its arguments as the model wrote them.
        """
        del request, call
        return None
