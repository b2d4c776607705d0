"""Gemini's generateContent as chat completions: requests.

Engines have no such API. What a chat completion cannot say is refused by name rather than dropped,
except what changes no answer: safety settings, labels, thought signatures.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

__all__ = [
    "GeminiCall",
    "GeminiError",
    "chat_of",
    "gemini_call_of",
    "tokenize_of",
    "translated_request",
]

Action = Literal["generateContent", "streamGenerateContent", "countTokens"]

_PATH: Final = re.compile(
    r"/v1(?:beta|alpha)?/models/([\w./:-]+?):(generateContent|streamGenerateContent|countTokens)",
    re.ASCII,
)
_OPTIONS: Final = {
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "maxOutputTokens": "max_completion_tokens",
    "stopSequences": "stop",
    "candidateCount": "n",
    "seed": "seed",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
}
_CHOICES: Final = {"AUTO": "auto", "ANY": "required", "NONE": "none", "VALIDATED": "auto"}
_IGNORED_PARTS: Final = frozenset({"thoughtSignature", "thought", "videoMetadata"})


class GeminiError(ValueError):
    """A request that cannot be a chat completion; the text says what in it."""


class GeminiCall(NamedTuple):
    """What a path asks for.

    Attributes:
        model: Name of the model.
        action: What to do.
    """

    model: str
    action: Action


def gemini_call_of(path: str) -> GeminiCall | None:
    """Return what a path of Gemini's API asks for; None for any other path. Pure."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    return GeminiCall(found[1], found[2])  # type: ignore[arg-type]


def translated_request(call: GeminiCall, body: bytes) -> bytes:
    """Return the engine's request for a request of Gemini's. Pure; O(bytes).

    Raises:
        GeminiError: As for `chat_of`.
    """
    return tokenize_of(call, body) if call.action == "countTokens" else chat_of(call, body)


def chat_of(call: GeminiCall, body: bytes) -> bytes:
    """Return the chat completion for a request. Pure; O(bytes).

    Raises:
        GeminiError: The body has another shape, or asks for what no chat completion has.
    """
    asked = _object(body)
    chat = _conversation(call, asked)
    config = _field(asked, "generationConfig", dict)
    chat |= {_OPTIONS[name]: value for name, value in config.items() if name in _OPTIONS}
    if (form := _response_format(config)) is not None:
        chat["response_format"] = form
    if call.action == "streamGenerateContent":
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(chat)


def tokenize_of(call: GeminiCall, body: bytes) -> bytes:
    """Return the request that counts a prompt's tokens. Pure; O(bytes).

    Raises:
        GeminiError: As for `chat_of`.
    """
    asked = _object(body)
    return msgspec.json.encode(_conversation(call, asked.get("generateContentRequest") or asked))


def _conversation(call: GeminiCall, asked: Mapping[str, Any]) -> dict[str, Any]:
    if asked.get("cachedContent"):
        raise GeminiError("cachedContent: engines cache prefixes by themselves; send the content")
    messages = [*_system(asked.get("systemInstruction")), *_messages(asked)]
    if not messages:
        raise GeminiError("contents: empty")
    chat: dict[str, Any] = {"model": call.model, "messages": messages}
    tools = [tool for each in _field(asked, "tools", list) for tool in _tools(each)]
    if tools:
        chat["tools"] = tools
        if (choice := _choice(_field(asked, "toolConfig", dict))) is not None:
            chat["tool_choice"] = choice
    return chat


def _object(body: bytes) -> dict[str, Any]:
    try:
        asked = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise GeminiError(f"the body is no JSON: {error}") from None
    if not isinstance(asked, dict):
        raise GeminiError("the body is no JSON object")
    return asked


def _field(asked: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    """A field, empty where it is missing."""
    value = asked.get(name)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise GeminiError(f"{name}: expected {'an object' if kind is dict else 'an array'}")
    return value


# Messages.


def _system(instruction: Any) -> Iterator[dict[str, Any]]:
    if instruction is None:
        return
    if not isinstance(instruction, dict):
        raise GeminiError("systemInstruction: expected an object")
    texts = [part.get("text", "") for part in _parts(instruction)]
    yield {"role": "system", "content": "\n".join(texts)}


def _messages(asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a conversation's messages; calls without an id are numbered."""
    unanswered: defaultdict[str, deque[str]] = defaultdict(deque)
    num_calls = 0
    for content in _field(asked, "contents", list):
        if not isinstance(content, dict):
            raise GeminiError("contents: expected objects")
        parts = list(_parts(content))
        if content.get("role") == "model":
            message = _answer(parts, num_calls)
            for call in message.get("tool_calls", ()):
                unanswered[call["function"]["name"]].append(call["id"])
                num_calls += 1
            yield message
        else:
            yield from _asked(parts, unanswered)


def _parts(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for part in _field(content, "parts", list):
        if not isinstance(part, dict):
            raise GeminiError("parts: expected objects")
        yield part


def _answer(parts: Sequence[dict[str, Any]], num_calls: int) -> dict[str, Any]:
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for part in parts:
        if part.get("thought"):
            continue  # templates drop earlier reasoning
        if "functionCall" in part:
            call = _field(part, "functionCall", dict)
            arguments = msgspec.json.encode(call.get("args") or {}).decode()
            function = {"name": str(call.get("name", "")), "arguments": arguments}
            name = str(call.get("id") or f"call_{num_calls + len(calls)}")
            calls.append({"id": name, "type": "function", "function": function})
        else:
            texts.append(_text(part))
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if calls:
        message["tool_calls"] = calls
    return message


def _asked(
    parts: Sequence[dict[str, Any]], unanswered: Mapping[str, deque[str]]
) -> Iterator[dict[str, Any]]:
    """Yield results of tools, then what a user says beside them."""
    said: list[dict[str, Any]] = []
    for part in parts:
        if "functionResponse" not in part:
            said.append(_shown(part))
            continue
        result = _field(part, "functionResponse", dict)
        waiting = unanswered[str(result.get("name", ""))]
        name = str(result.get("id") or (waiting[0] if waiting else ""))
        if name in waiting:
            waiting.remove(name)
        yield {"role": "tool", "tool_call_id": name, "content": _result(result.get("response"))}
    if said and all(each["type"] == "text" for each in said):
        yield {"role": "user", "content": "\n".join(each["text"] for each in said)}
    elif said:
        yield {"role": "user", "content": said}


def _result(response: Any) -> str:
    if isinstance(response, dict) and len(response) == 1:
        (only,) = response.values()
        if isinstance(only, str):
            return only
    return response if isinstance(response, str) else msgspec.json.encode(response).decode()


def _shown(part: dict[str, Any]) -> dict[str, Any]:
    if "inlineData" not in part:
        return {"type": "text", "text": _text(part)}
    data = _field(part, "inlineData", dict)
    kind = str(data.get("mimeType", ""))
    if not kind.startswith("image/"):
        raise GeminiError(f"inlineData: {kind or 'no mimeType'} is not supported; images are")
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data.get('data', '')}"}}


def _text(part: dict[str, Any]) -> str:
    kinds = part.keys() - _IGNORED_PARTS
    if kinds == {"text"} and isinstance(part["text"], str):
        return part["text"]
    if not kinds:
        return ""
    raise GeminiError(f"parts: {', '.join(sorted(kinds))} is not supported here")


# Tools and forms.


def _tools(tool: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(tool, dict):
        raise GeminiError("tools: expected objects")
    for kind in tool:
        if kind != "functionDeclarations":
            raise GeminiError(f"tools: {kind} is not supported; functionDeclarations are")
    for declared in _field(tool, "functionDeclarations", list):
        if not isinstance(declared, dict):
            raise GeminiError("functionDeclarations: expected objects")
        schema = declared.get("parametersJsonSchema") or _json_schema(declared.get("parameters"))
        function = {"name": str(declared.get("name", ""))}
        if "description" in declared:
            function["description"] = declared["description"]
        parameters = schema or {"type": "object", "properties": {}}
        yield {"type": "function", "function": {**function, "parameters": parameters}}


def _json_schema(schema: Any) -> Any:
    """Gemini's own schemas write types in capitals; all else is JSON Schema's."""
    if isinstance(schema, list):
        return [_json_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _json_schema(value) for name, value in schema.items()}
    if isinstance(schema.get("type"), str):
        found["type"] = schema["type"].lower()
    return found


def _choice(config: Mapping[str, Any]) -> Any:
    calling = _field(config, "functionCallingConfig", dict)
    names = _field(calling, "allowedFunctionNames", list)
    if len(names) == 1 and calling.get("mode") == "ANY":
        return {"type": "function", "function": {"name": names[0]}}
    return _CHOICES.get(calling.get("mode", ""))


def _response_format(config: Mapping[str, Any]) -> dict[str, Any] | None:
    if config.get("responseMimeType") != "application/json":
        return None
    schema = config.get("responseJsonSchema") or _json_schema(config.get("responseSchema"))
    if not schema:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
