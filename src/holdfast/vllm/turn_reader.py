"""Reads texts of turns: how answers end, and which prompts hold sub-agents' tasks.

Process: engine core. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.runtime.runtime import AgentRuntime
from holdfast.tool_calls.turn_end import TurnEnd
from holdfast.vllm.output_tail import OutputTails, reader_of, text_reader_of

__all__ = ["TurnReader"]

_NUM_ANSWER_TOKENS = 1024  # of an answer's end
_NUM_PROMPT_TOKENS = 8192  # of a prompt's end, where a task stands, often before instructions


class TurnReader:
    """Reads texts off the serving path and delivers what it found to the runtime.

    Args:
        model_config: vLLM's; knows the tokenizer.
        runtime: Receives it.
        on_found: Called with each turn end at once, in another thread; must not raise.
    """

    def __init__(
        self,
        model_config: Any,
        runtime: AgentRuntime,
        on_found: Callable[[tuple[Session, int], TurnEnd], None],
    ) -> None:
        self._has_tokenizer = not model_config.skip_tokenizer_init
        self._runtime = runtime
        self.answers: OutputTails[tuple[Session, int], TurnEnd] = OutputTails(
            lambda: reader_of(model_config), on_found
        )
        self.prompts: OutputTails[Session, str] = OutputTails(lambda: text_reader_of(model_config))

    def arrived(self, turn: Turn, request: Any) -> None:
        """Read a new request's prompt where it may be a sub-agent's. O(1)."""
        tokens = request.prompt_token_ids
        if self._has_tokenizer and tokens and self._runtime.wants_prompt(turn.session):
            self.prompts.submit(turn.session, tokens[-_NUM_PROMPT_TOKENS:])

    def answered(self, turn: Turn, request: Any) -> None:
        """Read the end of a request's answer. O(1)."""
        session = turn.session
        tail = request.output_token_ids[-_NUM_ANSWER_TOKENS:]
        if self._has_tokenizer and self.answers.submit((session, session.num_turns), tail):
            self._runtime.turn_end_awaited(session)

    def deliver(self) -> None:
        """Give the runtime what has been read since the last call. Mutates the runtime."""
        for (session, num_turns), end in self.answers.findings():
            self._runtime.turn_end_known(session, num_turns, end)
        for session, text in self.prompts.findings():
            self._runtime.prompt_read(session, text)
