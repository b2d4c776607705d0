"""Builders of trace files and sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import (
    MessageText,
    Session,
    SessionEvent,
    ToolSpan,
    Turn,
    TurnText,
)

CallBuilder = Callable[..., dict[str, Any]]
FileWriter = Callable[..., Path]


@pytest.fixture
def call() -> CallBuilder:
    def build(t: float, hash_ids: Sequence[int], **fields: Any) -> dict[str, Any]:
        return {
            "t": t,
            "type": "s",
            "in": 64 * len(hash_ids) + 10,
            "out": 5,
            "hash_ids": list(hash_ids),
            "stop": "tool_use",
            "api_time": 2.0,
            "think_time": 0.0,
        } | fields

    return build


@pytest.fixture
def write_trace(tmp_path: Path) -> FileWriter:
    def write(requests: Sequence[Any], name: str = "a.json", **fields: Any) -> Path:
        document = {
            "id": name.removesuffix(".json"),
            "block_size": 64,
            "hash_id_scope": "global",
            "requests": list(requests),
        } | fields
        path = tmp_path / name
        path.write_bytes(msgspec.json.encode(document))
        return path

    return write


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, *lines: Mapping[str, Any]) -> Path:
        path = tmp_path / name
        path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        return path

    return write


@pytest.fixture
def session() -> Callable[..., Session]:
    def build(*turns: Turn, session_id: str = "a", block_size_tokens: int = 64) -> Session:
        return Session(session_id, block_size_tokens, turns, "test")

    return build


def _turns(draw: st.DrawFn, prompts: Sequence[tuple[int, ...]]) -> tuple[Turn, ...]:
    seconds = st.integers(0, 10**6).map(lambda number: number / 8)
    tools = st.builds(
        ToolSpan,
        name=st.text(min_size=1, max_size=5),
        command=st.none() | st.text(max_size=5),
        start_s=st.none() | st.just(0.5),
        end_s=st.none() | seconds.map(lambda end_s: end_s + 1),
        is_error=st.none() | st.booleans(),
        is_background=st.booleans(),
        session_id=st.none() | st.text(max_size=3),
    )
    texts = _texts(draw, len(prompts))
    return tuple(
        draw(
            st.builds(
                Turn,
                gap_s=st.just(0.0) if index == 0 else seconds,
                prompt_tokens=st.integers(16 * len(ids), 16 * len(ids) + 15),
                output_tokens=st.integers(0, 99),
                block_ids=st.just(ids),
                trigger=st.sampled_from(["user", "tool_result"]),
                ended_by=st.sampled_from(["tool", "human", "unknown"]),
                tool_name=st.none() | st.text(max_size=5),
                tool_command=st.none() | st.text(max_size=5),
                agent=st.text(max_size=3),
                model=st.text(max_size=3),
                latency_s=st.none() | seconds,
                cached_tokens=st.none() | st.integers(0, 99),
                tools=st.lists(tools, max_size=2).map(tuple),
                text=st.just(texts[index]),
            )
        )
        for index, ids in enumerate(prompts)
    )


def _texts(draw: st.DrawFn, num_turns: int) -> list[TurnText | None]:
    messages = st.lists(
        st.builds(MessageText, role=st.text(max_size=3), content=st.text(max_size=5)), max_size=2
    ).map(tuple)
    texts: list[TurnText | None] = []
    num_said = 0
    for _ in range(num_turns):
        if draw(st.booleans()):
            text = TurnText(draw(st.integers(0, num_said)), draw(messages), draw(messages))
            num_said = text.num_repeated + len(text.prompt) + len(text.answer)
            texts.append(text)
        else:
            num_said = 0
            texts.append(None)
    return texts


@st.composite
def _recordings(draw: st.DrawFn) -> list[Session]:
    interner = PrefixInterner()
    prompt = st.lists(st.integers(0, 2), min_size=1, max_size=6)
    sessions: list[Session] = []
    for number, prompts in enumerate(
        draw(st.lists(st.lists(prompt, min_size=1, max_size=4), min_size=1, max_size=4))
    ):
        trail = interner.trail(0)
        # Sub-agents follow their main agent.
        main = max((at for at, one in enumerate(sessions) if one.parent_id is None), default=0)
        parent = draw(st.none() | st.sampled_from(sessions[main:])) if sessions else None
        last = None if parent is None else len(parent.turns) - 1
        events = st.builds(
            SessionEvent,
            kind=st.sampled_from(["fork", "compaction", "close"]),
            turn_index=st.integers(0, len(prompts)),
            after_s=st.none() | st.just(2.5),
        )
        sessions.append(
            Session(
                session_id=f"s{number}" if parent is None else f"{parent.session_id}/s{number}",
                block_size_tokens=16,
                turns=_turns(draw, [trail.extend(hashes) for hashes in prompts]),
                source="",
                start_s=draw(st.none() | st.just(7.25)) if parent is None else None,
                parent_id=None if parent is None else parent.session_id,
                parent_turn=None if last is None else draw(st.none() | st.integers(0, last)),
                agent=draw(st.sampled_from(["", "main"])),
                join_turn=None if last is None else draw(st.none() | st.integers(0, last)),
                events=tuple(draw(st.lists(events, max_size=2))),
            )
        )
    return sessions


@pytest.fixture(scope="session")
def recordings() -> st.SearchStrategy[list[Session]]:
    """Draw sessions with every field, sub-agents after their parents; source is ""."""
    return _recordings()


@pytest.fixture(scope="session")
def renumbered() -> Callable[[Iterable[Session]], list[Session]]:
    """Drop sources and number blocks in order of their first use."""

    def renumber(sessions: Iterable[Session]) -> list[Session]:
        numbers: dict[int, int] = {}
        return [
            replace(
                session,
                source="",
                turns=tuple(
                    replace(
                        turn,
                        block_ids=tuple(
                            numbers.setdefault(i, len(numbers)) for i in turn.block_ids
                        ),
                    )
                    for turn in session.turns
                ),
            )
            for session in sessions
        ]

    return renumber
