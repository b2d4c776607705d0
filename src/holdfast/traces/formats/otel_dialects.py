"""Maps several instrumentations' attributes to OpenTelemetry's present names.

Reads OpenTelemetry's present and older names, OpenLLMetry's, OpenInference's, Langfuse's,
Logfire's, the Vercel AI SDK's, Sentry's and inference-perf's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from holdfast.traces.formats.chat_messages import json_or_text

__all__ = ["conventional", "event_attributes"]

_INPUT: Final = "gen_ai.input.messages"
_OUTPUT: Final = "gen_ai.output.messages"
_OPERATION: Final = "gen_ai.operation.name"

_OTHER_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "gen_ai.conversation.id": (
        "gen_ai.session.id",
        "session.id",
        "langfuse.session.id",
        "traceloop.association.properties.session_id",
        "ai.telemetry.metadata.sessionId",
        "exgentic.session.id",
    ),
    "gen_ai.agent.name": ("agent.name", "agent_name"),
    "gen_ai.request.model": (
        "llm.request.model_name",
        "llm.model_name",
        "llm.request.model",
        "langfuse.observation.model.name",
        "ai.model.id",
        "gen_ai.response.model",
        "llm.response.model",
    ),
    "gen_ai.usage.input_tokens": (
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "llm.usage.prompt_tokens",
        "ai.usage.inputTokens",
        "ai.usage.promptTokens",
    ),
    "gen_ai.usage.output_tokens": (
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
        "llm.usage.completion_tokens",
        "ai.usage.outputTokens",
        "ai.usage.completionTokens",
    ),
    "gen_ai.usage.cache_read.input_tokens": (
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.details.cache_read_tokens",
        "gen_ai.usage.details.cache_read_input_tokens",
        "gen_ai.usage.details.cached_tokens",
        "gen_ai.usage.input_tokens.cached",
        "gen_ai.usage.cached_tokens",
        "llm.token_count.prompt_details.cache_read",
        "llm.usage.cache_read_input_tokens",
        "ai.usage.cachedInputTokens",
    ),
    "gen_ai.usage.cache_creation.input_tokens": (
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
        "gen_ai.usage.details.cache_creation_input_tokens",
        "gen_ai.usage.input_tokens.cache_write",
        "llm.token_count.prompt_details.cache_write",
        "llm.usage.cache_creation_input_tokens",
    ),
    "gen_ai.response.finish_reasons": (
        "gen_ai.response.finish_reason",
        "gen_ai.response.stop_reason",
        "llm.response.finish_reason",
        "llm.response.stop_reason",
        "llm.finish_reason",
        "ai.response.finishReason",
    ),
    "gen_ai.tool.definitions": (
        "gen_ai.request.available_tools",
        "llm.request.functions",
        "llm.tools",
        "ai.prompt.tools",
    ),
    _INPUT: (
        "gen_ai.prompt",
        "llm.input_messages",
        "gen_ai.request.messages",
        "ai.prompt.messages",
        "ai.prompt",
        "langfuse.observation.input",
        "request_data",
        "llm.prompts",
        "input.value",
    ),
    _OUTPUT: (
        "gen_ai.output.message",
        "gen_ai.completion",
        "llm.output_messages",
        "gen_ai.output.text",
        "gen_ai.output",
        "gen_ai.response.text",
        "ai.response.text",
        "langfuse.observation.output",
        "response_data",
        "llm.choices",
        "output.value",
    ),
}
"""Other names of each attribute, the most informative first."""

# Names that are also used outside of model calls.
_VAGUE: Final = frozenset(
    {
        "input.value",
        "output.value",
        "langfuse.observation.input",
        "langfuse.observation.output",
        "request_data",
        "response_data",
    }
)
_FLAT: Final = re.compile(
    rf"^({'|'.join(re.escape(name) for others in _OTHER_NAMES.values() for name in others)})"
    r"\.(\d+)\.(.+)$"
)
_TOOL_CALLS: Final = ("gen_ai.response.tool_calls", "ai.response.toolCalls")
_USAGE_DETAILS: Final = "langfuse.observation.usage_details"
_LANGFUSE_USAGE: Final = {
    "input": "gen_ai.usage.input_tokens",
    "output": "gen_ai.usage.output_tokens",
    "cache_read_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "input_cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_creation_input_tokens": "gen_ai.usage.cache_creation.input_tokens",
}
# Attributes with the kind of a span, each of one dialect.
_KIND_NAMES: Final = (
    "llm.request.type",
    "openinference.span.kind",
    "langfuse.observation.type",
    "traceloop.span.kind",
    "ai.operationId",
)
_OPERATIONS: Final = {
    "chat": "chat",
    "llm": "chat",
    "generation": "chat",
    "completion": "text_completion",
    "agent": "invoke_agent",
    "tool": "execute_tool",
}
_VERCEL_CALL: Final = re.compile(r"^ai\.\w+\.do(Generate|Stream)$")
# A message's role by the name of its event.
_MESSAGE_EVENTS: Final = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
_CHOICE_EVENT: Final = "gen_ai.choice"
# An object without any of these is an answer in JSON.
_CHAT_FIELDS: Final = frozenset(
    {
        *("role", "content", "parts", "type", "text", "tool_calls"),
        *("message", "messages", "choices", "contents", "input", "output"),
    }
)
# Namespaces of all names above.
_NAMESPACES: Final = frozenset(
    ".".join(name.split(".")[:length])
    for name in (
        *_OTHER_NAMES,
        *(at for others in _OTHER_NAMES.values() for at in others),
        *_KIND_NAMES,
    )
    for length in range(1, name.count(".") + 1)
)
_MODEL: Final = "gen_ai.request.model"
_WRAPPERS: Final = ("message", "tool_call", "message_content", "tool", "prompt", "completion")


def conventional(recorded: Mapping[str, object]) -> tuple[dict[str, object], dict[str, str]]:
    """Return attributes by their present names, and the original of each renamed one.

    Pure.

    Args:
        recorded: By names of any dialect.
    """
    attributes = dict(_dotted(recorded))
    attributes = _unflattened(attributes) | attributes
    attributes = _of_events(json_or_text(attributes.get("events"))) | attributes
    operation = _operation(attributes)
    is_call = operation in ("chat", "text_completion") or _MODEL in attributes
    found = dict(attributes)
    renamed: dict[str, str] = {}
    for name, others in _OTHER_NAMES.items():
        if _is_nothing(attributes.get(name)):
            found.pop(name, None)
            there = (at for at in others if at in attributes and (is_call or at not in _VAGUE))
            if (other := next(there, None)) is not None:
                found[name], renamed[name] = _chat(name, other, attributes[other]), other
        elif not _is_list(attributes[name]):
            found[name] = _chat(name, name, attributes[name])
    _add_tool_calls(found)
    _add_langfuse_usage(found)
    if operation is not None:
        found[_OPERATION] = operation
    if operation == "invoke_agent" and "traceloop.entity.name" in attributes:
        found.setdefault("gen_ai.agent.name", attributes["traceloop.entity.name"])
    return found, renamed


def event_attributes(events: Iterable[tuple[str, Mapping[str, object]]]) -> dict[str, object]:
    """Return the attributes that a span's events hold; pure.

    Args:
        events: Name and attributes of each event.
    """
    found: dict[str, object] = {}
    messages = []
    for name, attributes in events:
        if name in _MESSAGE_EVENTS or name == _CHOICE_EVENT:
            messages.append({"event.name": name} | dict(attributes))
        elif name.startswith("gen_ai."):
            found |= attributes
    return _of_events(messages) | found


def _of_events(events: Any) -> dict[str, object]:
    """Return messages recorded as events, in their order."""
    given: list[dict[str, Any]] = []
    answered: list[dict[str, Any]] = []
    for event in events if isinstance(events, list) else ():
        if not isinstance(event, dict):
            continue
        name = event.get("event.name")
        rest = {key: value for key, value in event.items() if not key.startswith("event.")}
        if name == _CHOICE_EVENT:
            answered.append(_choice(rest))
        elif isinstance(name, str) and name in _MESSAGE_EVENTS:
            given.append({"role": _MESSAGE_EVENTS[name]} | _without_dialect(rest))
    found = {_INPUT: given, _OUTPUT: answered}
    return {name: messages for name, messages in found.items() if messages}


def _choice(event: dict[str, Any]) -> dict[str, Any]:
    message = json_or_text(event.get("message"))
    if isinstance(message, dict):
        event = event | message
    elif message is not None:
        event = event | {"content": message}
    return {"role": "assistant"} | _without_dialect(
        {name: value for name, value in event.items() if name != "message"}
    )


def _without_dialect(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if not name.startswith("gen_ai.")}


def _dotted(recorded: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield attributes by their full names, from nested objects as well."""
    for name, value in recorded.items():
        if isinstance(value, dict) and prefix + name in _NAMESPACES:
            yield from _dotted(value, f"{prefix}{name}.")
        elif value not in (None, ""):
            yield prefix + name, value


def _unflattened(attributes: Mapping[str, object]) -> dict[str, object]:
    """Return lists that were recorded with one attribute a value, as `NAME.0.role`."""
    flat: dict[str, dict[int, dict[str, object]]] = {}
    for key, value in attributes.items():
        if (match := _FLAT.match(key)) is not None:
            flat.setdefault(match[1], {}).setdefault(int(match[2]), {})[match[3]] = value
    return {
        name: [_nested(items[index]) for index in sorted(items)] for name, items in flat.items()
    }


def _nested(flat: Mapping[str, object]) -> Any:
    """Nest attributes such as `a.0.b`; drops levels that only name a value's type."""
    groups: dict[str, dict[str, object]] = {}
    plain: dict[str, object] = {}
    for key, value in flat.items():
        first, _, rest = key.partition(".")
        if rest:
            groups.setdefault(first, {})[rest] = value
        elif isinstance(value, list):
            plain[first] = [_nested(item) if isinstance(item, dict) else item for item in value]
        else:
            plain[first] = value
    for name, inner in groups.items():
        plain[name] = _nested(inner)
    if plain and all(name.isdigit() for name in plain):
        return [plain[name] for name in sorted(plain, key=int)]
    for name in _WRAPPERS:
        wrapped = plain.get(name)
        if isinstance(wrapped, dict) and len(plain) == 1:
            return _nested(wrapped)
    return plain


def _chat(name: str, other: str, value: Any) -> Any:
    """Return messages of any layout as a list; other attributes as they are."""
    if name not in (_INPUT, _OUTPUT):
        return value
    role = "user" if name == _INPUT else "assistant"
    decoded = value if other.endswith(".text") else json_or_text(value)
    items = decoded if isinstance(decoded, list) else [decoded]
    items = [_nested(item) if isinstance(item, dict) else item for item in items]
    if not items or not all(
        isinstance(item, dict) and _CHAT_FIELDS & item.keys() for item in items
    ):
        return [{"role": role, "content": value}]
    return [message for item in items for message in _messages_in(item, role)]


def _messages_in(value: dict[str, Any], role: str) -> Iterator[dict[str, Any]]:
    """Yield the messages of a request or an answer, or of a single message."""
    for name in ("messages", "choices", "contents", "input", "output"):
        inner = value.get(name)
        if isinstance(inner, list) and "role" not in value:
            system = value.get("system", value.get("instructions"))
            if system is not None:
                yield {"role": "system", "content": system}
            for item in inner:
                if isinstance(item, dict):
                    yield from _messages_in(item, role)
            return
    message = value.get("message")
    if isinstance(message, dict):
        yield {"role": role, "finish_reason": value.get("finish_reason")} | message
    elif "type" in value and "role" not in value and "content" not in value:
        yield value
    else:
        yield {"role": role} | value


def _add_tool_calls(found: dict[str, object]) -> None:
    """Add tool calls that are recorded beside the answer's text."""
    calls = next((json_or_text(found[name]) for name in _TOOL_CALLS if name in found), None)
    if not isinstance(calls, list) or not calls:
        return
    messages = found.setdefault(_OUTPUT, [{"role": "assistant"}])
    if isinstance(messages, list) and len(messages) == 1 and isinstance(messages[0], dict):
        found[_OUTPUT] = [{"tool_calls": calls} | messages[0]]


def _add_langfuse_usage(found: dict[str, object]) -> None:
    details = json_or_text(found.get(_USAGE_DETAILS))
    for theirs, ours in _LANGFUSE_USAGE.items():
        if isinstance(details, dict) and details.get(theirs) is not None:
            found.setdefault(ours, details[theirs])


def _operation(attributes: Mapping[str, object]) -> str | None:
    if attributes.get(_OPERATION) is not None:
        return None
    for name in _KIND_NAMES:
        kind = attributes.get(name)
        if not isinstance(kind, str):
            continue
        if name == "ai.operationId":
            return "chat" if _VERCEL_CALL.match(kind) else kind
        return _OPERATIONS.get(kind.lower(), kind.lower())
    return None


def _is_list(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.startswith("["))


def _is_nothing(value: object) -> bool:
    return value is None or value == [] or value == "[]"
