"""Rules on tool calls of answers, budgets of sessions, and an end to loops."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import Meta, Struct

from holdfast.core.opening_message import opening_message
from holdfast.errors import PolicyError
from holdfast.policies.requests import (
    AnswerEnded,
    CallJudged,
    Refused,
    Request,
    RequestEvent,
    RequestPolicy,
    RequestSent,
    ToolCall,
    Verdict,
)
from holdfast.policies.spec import PolicySettings, PolicySpec
from holdfast.tool_calls.call_arguments import (
    UnreadableArgumentsError,
    canonical_arguments,
    read_arguments,
    texts_at,
)

__all__ = ["ToolRule", "ToolRules", "ToolRulesSettings"]

Action = Literal["allow", "deny", "ask"]
Count = Annotated[int, Meta(ge=1)]
Price = Annotated[float, Meta(ge=0)]

_MOST_CALLS: Final = 1024  # different ones, remembered of a session
_BYTES_A_TOKEN: Final = 4  # of an answer without usage
_DIGEST_BYTES: Final = 16


class ToolRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens to some tool calls.

    Attributes:
        action: Let it pass; replace it by a refusal; or replace it by a question to the human.
        name: For the audit log and for clients; "" takes the rule's number.
        tool: Glob of the tool's name; letter case counts.
        arguments: RE2 patterns by the path of an argument (`command`, `edits.*.path`, `**` for all
            of them); each must be found in a value there. Arguments that cannot be read match every
            pattern of `deny` and `ask`, and none of `allow`.
        tenant: Glob of the tenant.
        agent: Glob of the agent's id; "" is a call whose agent is not known.
        message: What clients are told; "" takes a general text.
    """

    action: Action
    name: str = ""
    tool: str = "*"
    arguments: dict[str, str] = {}
    tenant: str = "*"
    agent: str = "*"
    message: str = ""


class ToolRulesSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `ToolRules`.

    Attributes:
        rules: The first that matches a call decides.
        default: What happens to calls that no rule matches.
        turns: Requests that a session may send (count); None for any number.
        tokens: Tokens, of prompts and answers, after which it sends no more (tokens); None for any
            number.
        spend: Cost after which it sends no more, in the unit of the prices; None for any.
        input_price: Of a million tokens of prompt, cached or not.
        output_price: Of a million tokens of answer.
        repeats: Times that a session may make one call, arguments included (count); None for any.
        sessions: Sessions remembered, the latest used ones (count).
    """

    rules: tuple[ToolRule, ...] = ()
    default: Action = "allow"
    turns: Count | None = None
    tokens: Count | None = None
    spend: Annotated[float, Meta(gt=0)] | None = None
    input_price: Price = 0.0
    output_price: Price = 0.0
    repeats: Count | None = None
    sessions: Count = 10_000

    def __post_init__(self) -> None:
        if self.spend is not None and not self.input_price and not self.output_price:
            raise ValueError("spend needs input_price or output_price, of a million tokens")


@dataclass(slots=True)
class _Session:
    """What a session has used.

    Attributes:
        prompt_bytes: Of its last request, in case the answer does not count tokens.
        calls: How often it has made each call, the latest ones, by digest.
    """

    turns: int = 0
    tokens: int = 0
    spend: float = 0.0
    prompt_bytes: int = 0
    calls: OrderedDict[bytes, int] = field(default_factory=OrderedDict)


class ToolRules(RequestPolicy):
    """Decides about tool calls by rules, and stops sessions that have used enough.

    A session is the client's id, or else the tenant and the first message of a user: clients
    without ids that begin alike share a budget.
    """

    spec = PolicySpec(
        name="tool-rules",
        summary="Allows, denies or asks about tool calls, by rules; budgets and loops of sessions.",
        source="Holdfast; the first rule that matches decides, as in a firewall.",
        settings=ToolRulesSettings,
    )
    judges_calls: ClassVar[bool] = True
    is_mandatory: ClassVar[bool] = True
    settings: ToolRulesSettings

    def __init__(self, settings: ToolRulesSettings | None = None) -> None:
        super().__init__(settings or ToolRulesSettings())
        self._rules = [
            _Matcher(rule, rule.name or f"rule {number}")
            for number, rule in enumerate(self.settings.rules, 1)
        ]
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()

    def observe(self, event: RequestEvent) -> None:
        """Count turns, tokens and calls."""
        if not isinstance(event, RequestSent | AnswerEnded | CallJudged):
            return
        session = self._used(event.request)
        if session is None:
            return
        match event:
            case RequestSent():
                session.turns += 1
                session.prompt_bytes = event.num_bytes
            case AnswerEnded():
                self._charge(session, event)
            case CallJudged() if event.verdict.is_allowed:
                _count(session.calls, _digest(event.call))

    def refuse(self, request: Request) -> Refused | None:
        """Refuse what comes from a session whose budget is used up."""
        session = self._known(request)
        if session is None:
            return None
        of = self.settings
        for what, used, most in (
            ("turns", session.turns, of.turns),
            ("tokens", session.tokens, of.tokens),
            ("spend", session.spend, of.spend),
        ):
            if most is not None and used >= most:
                return Refused(
                    f"this session has used {used:.6g} of {most:.6g} {what}; begin another session "
                    "or ask an operator",
                    rule=what,
                )
        return None

    def judge(self, request: Request, call: ToolCall) -> Verdict:
        """Decide by the first rule that matches, then by how often the call was made."""
        rule = next((each for each in self._rules if each.matches(request, call)), None)
        action = self.settings.default if rule is None else rule.rule.action
        if action != "allow":
            name = "default" if rule is None else rule.name
            return Verdict(action, name, _text(action, name, rule))
        session, most = self._known(request), self.settings.repeats
        if session is None or most is None or session.calls.get(_digest(call), 0) < most:
            return Verdict("allow", "default" if rule is None else rule.name)
        return Verdict(
            "deny",
            "repeats",
            f"[A tool call was not made: this session has made it {most} times already. Try "
            "another way.]",
        )

    def _charge(self, session: _Session, event: AnswerEnded) -> None:
        prompt, output = event.prompt_tokens, event.output_tokens or 0
        if prompt is None:
            prompt = session.prompt_bytes // _BYTES_A_TOKEN
        session.tokens += prompt + output
        price = prompt * self.settings.input_price + output * self.settings.output_price
        session.spend += price / 1e6

    def _known(self, request: Request) -> _Session | None:
        key = _session_key(request)
        return None if key is None else self._sessions.get(key)

    def _used(self, request: Request) -> _Session | None:
        key = _session_key(request)
        if key is None:
            return None
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = _Session()
            if len(self._sessions) > self.settings.sessions:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(key)
        return session


class _Matcher:
    """A rule and its compiled patterns."""

    def __init__(self, rule: ToolRule, name: str) -> None:
        self.rule = rule
        self.name = name
        self._patterns = [
            (path.split("."), _compiled(pattern, name)) for path, pattern in rule.arguments.items()
        ]

    def matches(self, request: Request, call: ToolCall) -> bool:
        """Whether the rule is about this call. Pure; linear in its length."""
        who = request.identity
        return (
            fnmatchcase(call.name, self.rule.tool)
            and fnmatchcase(who.tenant, self.rule.tenant)
            and fnmatchcase(who.agent_id or "", self.rule.agent)
            and (not self._patterns or self._are_found(call.arguments))
        )

    def _are_found(self, text: str) -> bool:
        try:
            arguments = read_arguments(text)
        except UnreadableArgumentsError:
            return self.rule.action != "allow"
        return all(
            any(pattern.search(_encoded(found)) for found in texts_at(arguments, path))
            for path, pattern in self._patterns
        )


def _compiled(pattern: str, rule: str) -> Any:
    """An RE2 pattern, which takes time linear in the text, whatever a model writes."""
    try:
        import re2
    except ImportError:
        raise PolicyError(
            f"{rule}: patterns of arguments need RE2", hint="pip install 'holdfast[gateway]'"
        ) from None
    options = re2.Options()
    options.dot_nl = True
    options.log_errors = False
    try:
        return re2.compile(_encoded(pattern), options)
    except re2.error as error:
        said = error.args[0] if error.args else error
        shown = said.decode() if isinstance(said, bytes) else said
        raise PolicyError(f"{rule}: {pattern!r} is no pattern of RE2: {shown}") from None


def _text(action: Action, name: str, rule: _Matcher | None) -> str:
    """What clients see in place of the call; nothing that a model wrote is in it."""
    why = rule.rule.message if rule is not None and rule.rule.message else f"by {name}"
    if action == "ask":
        return (
            f"[A tool call was not made: a human has to decide ({why}). Please do it yourself, or "
            "say how to go on without it.]"
        )
    return f"[A tool call was not made: it is not allowed ({why}).]"


def _session_key(request: Request) -> bytes | None:
    """Digest of the session's id or its first message of a user; None without either."""
    who = request.identity
    name = who.session_id
    if name is None:
        opening = opening_message(request.body)
        if opening is None:
            return None
        name = "\x00" + opening
    digest = blake2b(digest_size=_DIGEST_BYTES)
    digest.update(_encoded(f"{who.tenant}\x00{name}"))
    return digest.digest()


def _digest(call: ToolCall) -> bytes:
    text = f"{call.name}\x00{canonical_arguments(call.arguments)}"
    return blake2b(_encoded(text), digest_size=_DIGEST_BYTES).digest()


def _count(calls: OrderedDict[bytes, int], digest: bytes) -> None:
    calls[digest] = calls.get(digest, 0) + 1
    calls.move_to_end(digest)
    if len(calls) > _MOST_CALLS:
        calls.popitem(last=False)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")
