"""Rewrites prompts so that each extends its session's last one, as far as allowed.

Each rule has the argument why the model's input keeps its meaning, and its risk, in `RULES`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from holdfast.core.prompt_history import stream_of
from holdfast.core.volatile_text import VolatileKind, without
from holdfast.policies.ours.inline_system import may_have_inline_system, without_inline_system
from holdfast.policies.ours.prompt_head import HeadState, head_of, keep_head
from holdfast.policies.ours.prompt_tools import ToolForms, in_order, tool_names
from holdfast.policies.ours.prompt_view import PromptView
from holdfast.policies.requests import Request, RequestEvent, RequestPolicy, RequestSent
from holdfast.policies.spec import PolicySettings, PolicySpec

__all__ = ["RULES", "CanonicalPrompt", "CanonicalPromptSettings", "Rule", "RuleName"]

RuleName = Literal["billing", "tool-order", "tool-form", "dates", "git-status", "inline-system"]

_MAX_SESSIONS: Final = 4096
_VOLATILE: Final[Mapping[RuleName, VolatileKind]] = {"dates": "date", "git-status": "git"}


@dataclass(frozen=True, slots=True)
class Rule:
    """What is known about a rule.

    Attributes:
        does: What it changes.
        argument: Why the model's input keeps its meaning.
        risk: What may be lost, and when not to allow it.
    """

    does: str
    argument: str
    risk: str


RULES: Final[Mapping[RuleName, Rule]] = {
    "billing": Rule(
        "takes lines such as `x-anthropic-billing-header: …` out of the system prompt",
        "The line is for the provider's accounts, not for the model: Anthropic documents it as no"
        " instruction, and vLLM from 0.32 on takes it out itself.",
        "none for engines; a router that counts by this line no longer finds it",
    ),
    "tool-order": Rule(
        "sends tools by name at first, later in the session's order with new ones after them",
        "No API gives the order of tools a meaning, and each tool is there with the same text.",
        "models have a slight liking for what stands first; do not allow it if an order was tuned",
    ),
    "tool-form": Rule(
        "sends a tool that equals an earlier one as JSON in the text in which that was first sent",
        "Both texts are the same JSON value (RFC 8259), and both are the client's own; no order of"
        " keys is made up.",
        "a client that reorders the properties of a schema on purpose is answered in the old order",
    ),
    "dates": Rule(
        "leaves lines with dates in the system prompt as first sent, and tells a change in the next"
        " message of the user",
        "The model is told all that the client says: the old line where it read it first, the new"
        " one later, and that it has changed.",
        "until the user's next message, in a long run of tools, the model has the old date",
    ),
    "git-status": Rule(
        "likewise with the repository's state: branch, status, last commits",
        "As for dates. Clients call it a snapshot of the conversation's start, which it then is.",
        "the old state stays in the prompt, beside the new one, for the rest of the session",
    ),
    "inline-system": Rule(
        "sends later messages of the system as `<system-reminder>` in the message before them",
        "The text stays at its place. A chat template that takes no later system message would move"
        " it to the head, away from what it is about; Claude Code writes it this way itself when it"
        " resumes a session.",
        "a user's words bind less than the system's; and a template that drops reasoning at a"
        " user's message may drop it here. Not for templates that take system messages in place",
    ),
}
"""Argument and risk of each rule."""


class CanonicalPromptSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `CanonicalPrompt`.

    Attributes:
        rules: The rules that are allowed; none changes nothing.

    Raises:
        ValueError: A rule is unknown.
    """

    rules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [rule for rule in self.rules if rule not in RULES]
        if unknown:
            raise ValueError(f"unknown rule {unknown[0]!r}; known rules: {', '.join(RULES)}")


@dataclass(frozen=True, slots=True)
class _Session:
    """What was sent of a session.

    Attributes:
        tools: Names of its tools, in their order.
        head: Its system prompt; None if nothing in it changes by itself.
    """

    tools: tuple[str, ...]
    head: HeadState | None


class CanonicalPrompt(RequestPolicy):
    """Rewrites prompts by the allowed rules.

    A rewritten prompt is rewritten into itself, and that of the next turn extends it, if the
    client's history does. It keeps lines that change (dates, the repository's state) and tools'
    texts in memory, bounded, while their rules are allowed; no other text.

    Args:
        settings: See `CanonicalPromptSettings`.
    """

    spec = PolicySpec(
        "canonical-prompt",
        "Rewrites prompts so that they extend their session's last one, by the rules allowed.",
        "recorded requests of eleven coding agents",
        settings=CanonicalPromptSettings,
    )
    settings: CanonicalPromptSettings

    def __init__(self, settings: CanonicalPromptSettings) -> None:
        super().__init__(settings)
        self._kinds = [kind for rule, kind in _VOLATILE.items() if rule in settings.rules]
        self._sessions: OrderedDict[Hashable, _Session] = OrderedDict()
        self._forms = ToolForms()

    def observe(self, event: RequestEvent) -> None:
        """Learn how a session's prompt was sent. Mutates."""
        if not isinstance(event, RequestSent) or not self._rewrites(event.request):
            return
        view = PromptView(event.request.body)
        tenant = event.request.identity.tenant
        if "tool-form" in self.settings.rules:
            for tool in view.tools:
                self._forms.learn(tenant, tool)
        key = _key_of(event.request)
        self._sessions.pop(key, None)
        head = head_of(view, self._kinds) if self._kinds else None
        self._sessions[key] = _Session(tool_names(view.tools) or (), head)
        if len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def rewrite(self, request: Request) -> bytes | None:
        """The canonical body; None if the request is canonical already. Pure."""
        if not self._rewrites(request):
            return None
        rules = self.settings.rules
        view = PromptView(request.body)
        session = self._sessions.get(_key_of(request))
        if "billing" in rules:
            view.map_head(_without_billing)
        if "tool-form" in rules:
            tenant = request.identity.tenant
            view.put_tools([self._forms.first_form(tenant, tool) for tool in view.tools])
        if "tool-order" in rules:
            view.put_tools(in_order(view.tools, () if session is None else session.tools))
        if "inline-system" in rules and may_have_inline_system(view.texts()):
            view.put_messages(without_inline_system(view.messages))
        if session is not None and session.head is not None:
            keep_head(view, self._kinds, session.head)
        return view.text()

    def _rewrites(self, request: Request) -> bool:
        """Whether there is a whole prompt, and a rule for it."""
        return bool(self.settings.rules) and not request.body.raw("previous_response_id")


def _key_of(request: Request) -> Hashable:
    identity = request.identity
    return stream_of(identity.session_id, identity.tenant, request.body)


def _without_billing(text: str) -> str | None:
    return without(text, "billing") or None
