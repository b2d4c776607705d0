"""Finds the session that a prompt continues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from holdfast.core.answer_marks import AnswerMarks
from holdfast.core.prompt_marks import PromptMark, PromptMarks
from holdfast.core.session import SIDE_CALL_RATIO, Session, SessionState, SessionTable, recency

__all__ = ["Found", "Lineage", "LineageReason", "Prompt"]

LineageReason = Literal[
    "prompt",
    "loop",
    "id",
    "answer",
    "no_match",
    "new_id",
    "in_engine",
    "other_stream",
    "side_call",
]
"""The rule that found the session (first four), or the reason why the prompt begins a new one."""

_BEGINNING_RATIO: Final = 20


class Prompt(NamedTuple):
    """A prompt, as far as the host knows it.

    Attributes:
        hashes: Prefix hashes of its full blocks.
        tokens: Its token ids; None if the host knows hashes only.
        block_tokens: Tokens a block.
    """

    hashes: Sequence[bytes]
    tokens: Sequence[int] | None = None
    block_tokens: int = 1

    @property
    def mark(self) -> PromptMark | None:
        """Mark of its end; None without token ids, or if it is too short."""
        if self.tokens is None:
            return None
        return PromptMark.of(self.hashes, self.tokens, self.block_tokens)


class Found(NamedTuple):
    """The session that a prompt continues, or None, and the reason."""

    session: Session | None
    because: LineageReason


class Lineage:
    """Finds the idle session that a prompt continues, by the first rule that applies.

    1. The prompt extends a session's last prompt. The answer may be left out or differ.
    2. It extends the prompt that began a session's last loop: chat templates drop the reasoning of
       earlier loops at each message of a user. It must extend that prompt to the token.
    3. It names a session by an explicit id. The id counts however much history was rewritten. If
       several streams send one id, the stream that shares most with the prompt is chosen. The
       prompt is a new stream if the chosen one is in the engine; if the prompt does not extend the
       history and arrives while a tool runs; and if it is shorter than the stream's first prompt
       and shares little with it (calls for a title, sub-agents under the id of their root). If a
       rewritten history returns, the id names several streams and is not trusted any more.
    4. Without an id, the session's last answer is a message of the prompt's history, word for word,
       and the prompt begins as the session does, for a twentieth of its first prompt at least:
       clients put new files or a new state of the repository before the conversation. An agent at
       a tool is not continued so, as those that it calls may start with its history.

    Args:
        table: The sessions.
    """

    def __init__(self, table: SessionTable) -> None:
        self._table = table
        self._marks: PromptMarks[Session] = PromptMarks()
        self._answers: AnswerMarks[Session] = AnswerMarks()

    def find(self, prompt: Prompt, group: str | None) -> Found:
        """Find the idle session that a prompt continues. Mutates learned templates only.

        With an explicit id only sessions of that id are considered, else only those without an id.
        """
        if prompt.tokens is not None:
            self._marks.learn(prompt.tokens)
        session = self._table.find(prompt.hashes, group)
        if session is not None and self._is_another(session, prompt):
            session = None
        marked = self._find_marked(prompt, group, 0 if session is None else session.prompt_blocks)
        if marked is not None:
            return marked
        if session is not None:
            return Found(session, "prompt")
        return self._find_answered(prompt) if group is None else self._find_named(prompt, group)

    def turn_arrived(self, session: Session, prompt: Prompt, because: LineageReason) -> None:
        """Learn that the prompt is a turn of this session, for that reason. Mutates.

        To be called before the session's state and pause change.
        """
        mark = prompt.mark
        if because == "id":
            self._marks.put(session, "replaced", self._marks.of(session, "prompt"))
        is_human_back = session.gap is not None and session.gap.kind == "human"
        if because != "prompt" or is_human_back:
            self._marks.put(session, "loop", mark)
        self._marks.put(session, "prompt", mark)

    def turn_answered(self, session: Session, tail: Sequence[int], num_answer_tokens: int) -> None:
        """Learn a complete answer; see `AnswerMarks.put`. Mutates."""
        if session.group is None:
            self._answers.put(session, tail, num_answer_tokens)

    def drop(self, session: Session) -> None:
        """Forget a session. Mutates."""
        self._marks.drop(session)
        self._answers.drop(session)

    def clear(self) -> None:
        """Forget all sessions. Mutates."""
        self._marks.clear()
        self._answers.clear()

    def _is_another(self, session: Session, prompt: Prompt) -> bool:
        """Whether a one-turn session shares blocks with the prompt, but not its messages."""
        mark = self._marks.of(session, "prompt")
        if session.num_turns != 1 or mark is None or prompt.tokens is None:
            return False
        return not self._marks.repeats(mark, prompt.tokens, prompt.block_tokens)

    def _find_marked(self, prompt: Prompt, group: str | None, above: int) -> Found | None:
        """Find the session with the deepest mark beyond `above` that the prompt extends."""
        if prompt.tokens is None:
            return None
        best: Found | None = None
        best_order = (0, (0.0, 0))
        depth = self._table.tree.match(prompt.hashes).depth
        for session, kind, mark in self._marks.candidates(prompt.hashes, above, depth):
            if mark.num_blocks < best_order[0]:
                break
            if not session.may_continue(group) or kind == "replaced":
                continue
            tokens, block_tokens = prompt.tokens, prompt.block_tokens
            if not self._marks.repeats(mark, tokens, block_tokens, is_longer=kind == "loop"):
                continue
            order = mark.num_blocks, recency(session)
            if best is None or order > best_order or (order == best_order and kind == "prompt"):
                best, best_order = Found(session, kind), order
        return best

    def _find_answered(self, prompt: Prompt) -> Found:
        best: Session | None = None
        best_order = (0, 0, (0.0, 0))
        repeated = {} if prompt.tokens is None else self._answers.repeated_in(prompt.tokens)
        for session, num_tokens in repeated.items():
            shared = self._table.num_shared(session, prompt.hashes)
            is_its = shared > 0 and _BEGINNING_RATIO * shared >= session.first_blocks
            if not is_its or not session.may_continue(None) or _waits_for_tool(session):
                continue
            order = num_tokens, shared, recency(session)
            if order > best_order:
                best, best_order = session, order
        return Found(best, "no_match" if best is None else "answer")

    def _find_named(self, prompt: Prompt, group: str) -> Found:
        sessions = self._table.of_group(group)
        streams = [s for s in sessions if self._may_be_rewritten(s)]
        if not streams:
            return Found(None, "other_stream" if sessions else "new_id")
        num_blocks = len(prompt.hashes)
        shared = {s: self._table.num_shared(s, prompt.hashes) for s in streams}
        nearest = max(streams, key=lambda s: (shared[s], s.prompt_blocks, recency(s)))
        if nearest.state.is_busy:
            return Found(None, "in_engine")
        if self._is_replaced(nearest, prompt):
            self._table.distrust(group)
        if not self._table.trusts(group):
            return Found(None, "other_stream")
        if sum(blocks == shared[nearest] for blocks in shared.values()) > 1:
            is_root = nearest is self._table.root_of(group)
            if not is_root or num_blocks < nearest.prompt_blocks:
                return Found(None, "other_stream")  # it may continue any of them
        is_other = _is_other_stream(nearest, num_blocks, shared[nearest])
        return Found(None, "other_stream") if is_other else Found(nearest, "id")

    def _may_be_rewritten(self, session: Session) -> bool:
        return session.state is not SessionState.CLOSED and not self._table.is_side_call(session)

    def _is_replaced(self, session: Session, prompt: Prompt) -> bool:
        mark = self._marks.of(session, "replaced")
        if mark is None or prompt.tokens is None or len(prompt.hashes) < mark.num_blocks:
            return False
        if prompt.hashes[mark.num_blocks - 1] != mark.block_hash:
            return False
        return self._marks.repeats(mark, prompt.tokens, prompt.block_tokens)


def _is_other_stream(session: Session, num_blocks: int, shared_blocks: int) -> bool:
    """Whether a prompt under a session's id belongs to another stream. Pure.

    Args:
        session: The stream of that id that shares most with the prompt.
        num_blocks: Full blocks of the prompt (count).
        shared_blocks: Leading blocks that both share (count).
    """
    if num_blocks >= session.prompt_blocks:
        # The history grew, unless it is very short: a call for a title may come first.
        is_side_call = session.num_turns == 1 and session.state is SessionState.HUMAN_AWAY
        is_larger = num_blocks > SIDE_CALL_RATIO * session.first_blocks
        return is_side_call and is_larger and 2 * shared_blocks < session.first_blocks
    if _waits_for_tool(session):
        return True
    return num_blocks < session.first_blocks and 2 * shared_blocks < num_blocks


def _waits_for_tool(session: Session) -> bool:
    """Whether the session is known to wait for a tool."""
    return session.state is SessionState.AT_TOOL and session.gap.kind != "unknown"
