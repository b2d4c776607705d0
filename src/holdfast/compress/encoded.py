"""Samples and recorded sessions as tokens of one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.compress.samples import Question, Sample
from holdfast.errors import ConfigError

__all__ = [
    "EncodedPiece",
    "EncodedQuestion",
    "EncodedSample",
    "EncodedTurn",
    "encode_sample",
    "read_conversations",
    "read_sessions",
]

_MARK: Final = "\x00"
"""Stands where a turn ends while a template is filled in; no text has it."""

_MOST_ANSWER_TOKENS: Final = 64


@dataclass(frozen=True, slots=True)
class EncodedQuestion:
    """A question as token ids.

    Attributes:
        tokens: From the context's end to the answer (at least one).
        answer: The answer (at least one).
    """

    tokens: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EncodedPiece:
    """A stretch of a recorded session as token ids, an answer of the assistant or not."""

    tokens: tuple[int, ...]
    is_answer: bool


@dataclass(frozen=True, slots=True)
class EncodedTurn:
    """A turn as token ids (at least one), and its questions."""

    tokens: tuple[int, ...]
    questions: tuple[EncodedQuestion, ...]


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """A sample as token ids; see `Sample`."""

    task: str
    seed: int
    turns: tuple[EncodedTurn, ...]


class _Session(msgspec.Struct):
    """A line of a file of sessions: messages as in a request to a chat API."""

    messages: list[dict[str, Any]]


def encode_sample(tokenizer: Any, sample: Sample) -> EncodedSample:
    """A sample in the model's chat template.

    Its turns and a question are one user message.

    Args:
        tokenizer: A tokenizer of transformers. Without a chat template, a question follows the
            context after an empty line.
        sample: The sample.
    """
    head, tail = _around(tokenizer)
    turns = []
    for index, turn in enumerate(sample.turns):
        text = head + turn.text if index == 0 else turn.text
        questions = tuple(_encoded_question(tokenizer, tail, q) for q in turn.questions)
        turns.append(EncodedTurn(_ids(tokenizer, text), questions))
    return EncodedSample(sample.task, sample.seed, tuple(turns))


def _encoded_question(tokenizer: Any, tail: str, question: Question) -> EncodedQuestion:
    asked = f"\n{question.text}{tail}{question.lead}"
    return EncodedQuestion(_ids(tokenizer, asked), _ids(tokenizer, question.answer))


def _around(tokenizer: Any) -> tuple[str, str]:
    """Text before a user message, and from its end to where the answer begins."""
    if tokenizer.chat_template is None:
        return "", "\n"
    text = _rendered(tokenizer, [{"role": "user", "content": _MARK}])
    head, _, tail = text.partition(_MARK)
    return head, tail


def read_sessions(tokenizer: Any, path: Path) -> list[EncodedSample]:
    """Recorded sessions, whose own answers are what a compacted cache must still give.

    The first 64 tokens of each assistant message are asked for after everything before it; then
    the message is part of the next turn.

    Args:
        tokenizer: A tokenizer of transformers with a chat template.
        path: JSON lines, each with `messages` as in a request to a chat API; contents are text,
            or null beside tool calls.

    Raises:
        ConfigError: The file cannot be read, a line is no session, or the template does not
            render a session's start as the start of the session.
    """
    return [
        EncodedSample(
            "session", number, _session_turns(tokenizer, messages, f"{path}: line {number}")
        )
        for number, messages in _read_messages(path)
    ]


def read_conversations(tokenizer: Any, path: Path) -> list[tuple[EncodedPiece, ...]]:
    """Recorded sessions up to their last answers, in questions and answers.

    Args:
        tokenizer: A tokenizer of transformers with a chat template.
        path: JSON lines, each with `messages` as in a request to a chat API; contents are text,
            or null beside tool calls.

    Raises:
        ConfigError: As `read_sessions`.
    """
    return [
        _pieces(tokenizer, messages, f"{path}: line {number}")
        for number, messages in _read_messages(path)
    ]


def _read_messages(path: Path) -> list[tuple[int, list[dict[str, Any]]]]:
    """The messages of each line, with its number."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            session = msgspec.json.decode(line, type=_Session)
        except msgspec.DecodeError as error:
            raise ConfigError(f"{path}: line {number}: no session: {error}") from error
        found.append((number, list(map(_with_text, session.messages))))
    if not found:
        raise ConfigError(f"{path}: no sessions")
    return found


def _with_text(message: dict[str, Any]) -> dict[str, Any]:
    """The message, with an empty text if tool calls are all it has."""
    is_silent = message.get("content") is None and message.get("tool_calls")
    return {**message, "content": ""} if is_silent else message


def _session_turns(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], where: str
) -> tuple[EncodedTurn, ...]:
    """A turn for each assistant message, from the last answer's begin to its own."""
    turns, shown, asked = [], "", tuple[int, ...]()
    for before, content in _answers(tokenizer, messages, where):
        # The prompt's last token asks, so that a question has at least one.
        *context, last = _ids(tokenizer, before[len(shown) :])
        answer = EncodedQuestion((last,), _ids(tokenizer, content)[:_MOST_ANSWER_TOKENS])
        turns.append(EncodedTurn((*asked, *context), (answer,)))
        shown, asked = before, (last,)
    if not turns or not all(turn.tokens for turn in turns):
        raise ConfigError(f"{where}: no answer follows a message")
    return tuple(turns)


def _pieces(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], where: str
) -> tuple[EncodedPiece, ...]:
    """What is before each assistant message, and the message."""
    pieces, shown = list[EncodedPiece](), ""
    for before, content in _answers(tokenizer, messages, where):
        if not before.startswith(shown):
            raise ConfigError(f"{where}: the chat template changes an answer once it is a past one")
        pieces.append(EncodedPiece(_ids(tokenizer, before[len(shown) :]), is_answer=False))
        pieces.append(EncodedPiece(_ids(tokenizer, content), is_answer=True))
        shown = before + content
    if not pieces:
        raise ConfigError(f"{where}: no answer follows a message")
    return tuple(pieces)


def _answers(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], where: str
) -> Iterator[tuple[str, str]]:
    """Each assistant message, after the prompt for it."""
    if tokenizer.chat_template is None:
        raise ConfigError("recorded sessions need a tokenizer with a chat template")
    shown = ""
    for index, message in enumerate(messages):
        content = message.get("content")
        if not isinstance(content, str):
            raise ConfigError(f"{where}: content of message {index} is not a text")
        if message.get("role") != "assistant" or not content or index == 0:
            continue
        before = _rendered(tokenizer, messages[:index])
        if not before.startswith(shown):
            raise ConfigError(f"{where}: the chat template changes what was before {index}")
        yield before, content
        shown = before


def _rendered(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> str:
    """The prompt for the answer to messages."""
    text: str = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, tokenize=False
    )
    return text


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    # Templates write special tokens themselves; some tokenizers would add a second first one.
    return tuple(tokenizer.encode(text, add_special_tokens=False))
