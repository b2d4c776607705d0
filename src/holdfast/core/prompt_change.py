"""Finds what makes a prompt not extend its session's last one.

A table of kinds says what each is, and which rule of the policy `canonical-prompt` prevents it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from holdfast.core.prompt_outline import Masked, PromptOutline

__all__ = ["CHANGES", "ChangeKind", "ChangeNote", "PromptChange", "change_between"]

ChangeKind = Literal[
    "billing",
    "date",
    "git",
    "id",
    "several",
    "form",
    "reminder",
    "reasoning",
    "tool_order",
    "tools_added",
    "tools_removed",
    "tool_definition",
    "system",
    "answer",
    "tool_result",
    "message",
    "inserted",
    "removed",
    "compacted",
    "model",
    "merged_system",
    "dropped_reasoning",
]
"""What changed; `CHANGES` has a sentence on each."""

_MASKS: Final[tuple[tuple[Masked, ChangeKind], ...]] = (
    ("form", "form"),
    ("billing", "billing"),
    ("date", "date"),
    ("git", "git"),
    ("reminder", "reminder"),
    ("reasoning", "reasoning"),
    ("id", "id"),
    ("all", "several"),
)
_OF_ROLE: Final[Mapping[str, ChangeKind]] = {
    "t": "tool_definition",
    "s": "system",
    "u": "message",
    "r": "tool_result",
    "a": "answer",
}


@dataclass(frozen=True, slots=True)
class ChangeNote:
    """What is known about a kind of change.

    Attributes:
        sentence: What happened.
        advice: What to do in the client or the engine, beside the rule.
        rule: The rule of `canonical-prompt` that prevents it; "" if none can be argued.
    """

    sentence: str
    advice: str
    rule: str = ""


CHANGES: Final[Mapping[ChangeKind, ChangeNote]] = {
    "billing": ChangeNote(
        "a billing line in the system prompt changed",
        "Switch it off in the client.",
        "billing",
    ),
    "date": ChangeNote(
        "a date or a time of day near the prompt's head changed",
        "Put the date into the last message.",
        "dates",
    ),
    "git": ChangeNote(
        "the repository's state in the system prompt changed",
        "Leave it out of the system prompt; agents can ask git.",
        "git-status",
    ),
    "id": ChangeNote(
        "an id is new in every request",
        "Keep ids of calls and sessions as they were first sent.",
    ),
    "several": ChangeNote(
        "several of date, repository state, ids and reminders changed at once",
        "Put what changes at the prompt's end.",
        "dates",
    ),
    "form": ChangeNote(
        "the same JSON was written in another form: order of keys, white space",
        "Write tools and messages once, and send them as they were written.",
        "tool-form",
    ),
    "reminder": ChangeNote(
        "a reminder in an earlier message was moved, changed or taken out",
        "Let reminders stand where they were first sent, and add new ones at the end.",
    ),
    "reasoning": ChangeNote(
        "the client left out the reasoning of an earlier answer",
        "Send reasoning back, if the model's chat template shows it.",
    ),
    "tool_order": ChangeNote(
        "the same tools came in another order",
        "Sort the tools.",
        "tool-order",
    ),
    "tools_added": ChangeNote(
        "tools were added after the session had begun",
        "Load tools before the first request, or add them at the end of the list.",
        "tool-order",
    ),
    "tools_removed": ChangeNote(
        "tools were taken away after the session had begun",
        "Keep the list of tools, and forbid their use by tool_choice.",
    ),
    "tool_definition": ChangeNote(
        "a tool's description or schema changed",
        "Keep what changes out of descriptions of tools.",
    ),
    "system": ChangeNote(
        "the system prompt changed",
        "Put what changes at the prompt's end.",
    ),
    "answer": ChangeNote(
        "an earlier answer was sent back with other words",
        "Send answers back as they were given.",
    ),
    "tool_result": ChangeNote(
        "an earlier result of a tool was cut or replaced",
        "Cut results when they are first sent, or seldom and many at once.",
    ),
    "message": ChangeNote(
        "an earlier message of the user changed",
        "Put what changes at the prompt's end.",
    ),
    "inserted": ChangeNote(
        "new messages were put before others that stay last",
        "Append messages; files and rules that are always sent belong to the system prompt.",
    ),
    "removed": ChangeNote(
        "messages were taken out of the history",
        "Take out many at once, and seldom.",
    ),
    "compacted": ChangeNote(
        "the client replaced its history by a summary",
        "Nothing: a shorter prompt is the purpose. A larger context compacts less often.",
    ),
    "model": ChangeNote(
        "the request names another model",
        "Keep a session on one model.",
    ),
    "merged_system": ChangeNote(
        "the chat template merged a later system message into the prompt's head",
        "Give the engine a chat template that takes system messages in place (--chat-template).",
        "inline-system",
    ),
    "dropped_reasoning": ChangeNote(
        "the chat template dropped earlier reasoning at a new message of the user",
        "See whether the template has a switch to keep it (--default-chat-template-kwargs).",
    ),
}
"""A note on each kind."""

assert set(CHANGES) == set(get_args(ChangeKind))


@dataclass(frozen=True, slots=True)
class PromptChange:
    """Why a prompt does not repeat its session's last one.

    Attributes:
        kind: See `CHANGES`.
        where: The first part that differs: `model`, `tools`, `system` or `messages`.
        message: Index of the message that differs; None where another part does.
        depth_bytes: Leading bytes that both prompts have, as JSON, to a KiB.
        lost_bytes: Bytes of the last prompt that are to be computed again; 0 for a change that only
            a chat template would make.
    """

    kind: ChangeKind
    where: Literal["model", "tools", "system", "messages"]
    message: int | None
    depth_bytes: int
    lost_bytes: int


def change_between(last: PromptOutline, new: PromptOutline) -> PromptChange | None:
    """Why `new` does not extend `last`; None if it does. Pure; O(parts)."""
    shortest = min(last.num_bytes, new.num_bytes)
    if last.model != new.model:
        return PromptChange("model", "model", None, 0, shortest)
    num_shared = last.num_shared(new)
    if num_shared == len(last.exact):
        return _by_template(last, new)
    depth_bytes = last.shared_bytes(new)
    is_head = set(last.roles[: num_shared + 1]) <= {"t", "s"}
    return PromptChange(
        _kind(last, new, num_shared),
        ("tools" if last.roles[num_shared] == "t" else "system") if is_head else "messages",
        None if is_head else num_shared - last.first_message,
        depth_bytes,
        max(shortest - depth_bytes, 0),
    )


def _by_template(last: PromptOutline, new: PromptOutline) -> PromptChange | None:
    """A change that a chat template may make of messages that were appended."""
    num_parts = len(last.exact)
    added = new.roles[num_parts:]
    kind: ChangeKind | None = None
    if num_parts > new.first_message:
        kind = "merged_system" if "s" in added else "dropped_reasoning" if "u" in added else None
    if kind is None:
        return None
    message = num_parts - new.first_message
    return PromptChange(kind, "messages", message, last.num_bytes, 0)


def _kind(last: PromptOutline, new: PromptOutline, index: int) -> ChangeKind:
    """What changed at a part that differs, which `last` has."""
    role = last.roles[index]
    other = new.roles[index : index + 1]
    if role == "t" or other == "t":
        return _kind_of_tools(last, new)
    after, later = last.exact[index + 1 :], new.exact[index + 1 :]
    if new.exact[index : index + 1] and new.exact[index] in after:
        return "reminder" if role == "s" else "removed"
    masked = _masked_kind(last, new, index, index) if role == other else None
    if masked is not None:
        return masked
    if set(last.roles[: index + 1]) <= {"t", "s"}:
        return "system"
    if any(one == another for one, another in zip(after, later, strict=False)):
        return _OF_ROLE[role]  # changed where it stands
    if not set(later).isdisjoint(last.exact[index:]):
        return "inserted"
    return "compacted" if len(new.exact) < len(last.exact) else _OF_ROLE[role]


def _kind_of_tools(last: PromptOutline, new: PromptOutline) -> ChangeKind:
    ours, theirs = _tools(last), _tools(new)
    if set(ours) != set(theirs):
        return "tools_removed" if set(theirs) < set(ours) else "tools_added"
    changed = [name for name in ours if last.exact[ours[name]] != new.exact[theirs[name]]]
    if not changed:
        return "tool_order"
    name = changed[0]
    return _masked_kind(last, new, ours[name], theirs[name]) or "tool_definition"


def _tools(outline: PromptOutline) -> dict[int, int]:
    """Index of each tool, by the fingerprint of its name."""
    return {part.name: i for i, part in enumerate(outline.parts) if part.role == "t"}


def _masked_kind(
    last: PromptOutline, new: PromptOutline, ours: int, theirs: int
) -> ChangeKind | None:
    pairs = ((kind, masked) for masked, kind in _MASKS)
    return next(
        (kind for kind, masked in pairs if last.differs_by(new, ours, theirs, masked)), None
    )
