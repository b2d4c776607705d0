"""The prompts of one session: each role's own, as the conversation goes on and is rewritten."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from holdfast.workload.generator.draws import Draws
from holdfast.workload.generator.parameters import Agent
from holdfast.workload.generator.prompt import Heads, Prompt, PromptMaker
from holdfast.workload.study.mutations import MutationKind

__all__ = ["Conversation"]

_MAX_LINES = 16


@dataclass(slots=True)
class _Line:
    """Prompts that extend each other: the last of them, and which of its role's turns that was."""

    prompt: Prompt
    turn_index: int


@dataclass(slots=True)
class _Speaker:
    """A role: its lines, the one it is on last, and how much was said since its last prompt."""

    lines: list[_Line] = field(default_factory=list)
    num_turns: int = 0
    unread_tokens: float = 0.0


class Conversation:
    """Goes on as things are said; makes the prompt of who speaks next.

    Args:
        agent: Whose session.
        maker: Makes the prompts; mutated.
        heads: The agent's; mutated.
        draws: The session's; mutated.
        caller: The prompt that all prompts begin with in place of a head, where there is one.
    """

    def __init__(
        self, agent: Agent, maker: PromptMaker, heads: Heads, draws: Draws, caller: Prompt | None
    ) -> None:
        self._agent = agent
        self._maker = maker
        self._heads = heads
        self._draws = draws
        self._caller = caller
        self._speakers = {name: _Speaker() for name in agent.roles}
        self._said_tokens = 0.0

    def say(self, num_tokens: float) -> None:
        """Everybody hears more; negative where the end is taken back. Mutates."""
        self._said_tokens = num_tokens
        for speaker in self._speakers.values():
            speaker.unread_tokens += num_tokens

    def prompt(
        self, role_name: str, rewrite: MutationKind | None, limit_tokens: float = math.inf
    ) -> Prompt:
        """The prompt of the role that speaks next; mutates.

        Args:
            role_name: Who speaks.
            rewrite: How it leaves that role's last prompt, if there is one; None extends it.
            limit_tokens: What leaves it is no longer than this.
        """
        speaker = self._speakers[role_name]
        if not self._agent.roles[role_name].keeps_history:
            prompt = self._maker.extended(self._first(role_name), self._said_tokens)
        elif not speaker.lines:
            prompt = self._maker.extended(self._first(role_name), speaker.unread_tokens)
            speaker.lines.append(_Line(prompt, 0))
        else:
            prompt = self._next(speaker, rewrite, limit_tokens)
            speaker.lines[-1] = _Line(prompt, speaker.num_turns)
        speaker.num_turns += 1
        speaker.unread_tokens = 0.0
        return prompt

    def _first(self, role_name: str) -> Prompt:
        tokens = self._draws.trait(
            "first_prompt_tokens", self._agent.roles[role_name].prompt_tokens
        )
        if self._caller is not None:
            return self._maker.extended(self._caller, tokens)
        return self._heads.first_prompt(role_name, self._draws, tokens)

    def _next(self, speaker: _Speaker, rewrite: MutationKind | None, limit_tokens: float) -> Prompt:
        """The prompt of the line that is gone on with, which is put last."""
        last = speaker.lines[-1].prompt
        added_tokens = speaker.unread_tokens
        if rewrite is None:
            return self._maker.extended(last, added_tokens)
        if rewrite == "tail":
            lost_tokens = self._draws.value(self._agent.rewrites["tail"].kept_tokens)
            kept = self._maker.cut(last, max(0.0, last.num_tokens - lost_tokens))
            return self._to_size(kept, last.num_tokens + added_tokens)
        if rewrite == "return" and len(speaker.lines) > 1:
            self._go_back(speaker)
            return self._maker.extended(speaker.lines[-1].prompt, added_tokens)
        if rewrite == "return":
            # What will be gone back to begins here.
            rewrite = "branch" if "branch" in self._agent.rewrites else rewrite
        if rewrite != "compaction":
            speaker.lines.append(speaker.lines[-1])
            del speaker.lines[:-_MAX_LINES]
        return self._replaced(last, rewrite, limit_tokens)

    def _go_back(self, speaker: _Speaker) -> None:
        """Put the line last whose last prompt is about as many turns ago as returns go back."""
        turns_back = self._draws.value(self._agent.rewrites["return"].turns_back)
        wanted = speaker.num_turns - turns_back
        line = min(speaker.lines[:-1], key=lambda line: abs(line.turn_index - wanted))
        speaker.lines.remove(line)
        speaker.lines.append(line)

    def _replaced(self, last: Prompt, kind: MutationKind, limit_tokens: float) -> Prompt:
        rewrite = self._agent.rewrites[kind]
        size_tokens = last.num_tokens * self._draws.value(rewrite.size_ratio)
        size_tokens = min(size_tokens + self._draws.value(rewrite.added_tokens), limit_tokens)
        kept_tokens = min(self._draws.value(rewrite.kept_tokens), max(0.0, size_tokens))
        return self._to_size(self._maker.cut(last, kept_tokens), size_tokens)

    def _to_size(self, kept: Prompt, size_tokens: float) -> Prompt:
        return self._maker.extended(kept, max(1.0, size_tokens) - kept.num_tokens)
