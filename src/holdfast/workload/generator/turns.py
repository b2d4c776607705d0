"""Writes the turns and events of one session, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.traces.record import EventKind, SessionEvent, Trigger, Turn
from holdfast.workload.generator.conversation import Conversation
from holdfast.workload.generator.draws import Draws
from holdfast.workload.generator.odds import OddsRatios, leaving_shares, scaled_chance
from holdfast.workload.generator.parameters import Agent, Step
from holdfast.workload.generator.prompt import Prompt
from holdfast.workload.study.mutations import MutationKind
from holdfast.workload.study.shape import EARLY_TURNS

__all__ = ["TurnWriter"]

# The finest resolution of recorded gaps.
_GAP_DIGITS = 3
_EVENTS: Mapping[MutationKind | None, EventKind] = {"compaction": "compaction", "return": "fork"}


@dataclass(frozen=True, slots=True)
class _Return:
    """How a session's next turn starts; the defaults are those of its first turn."""

    gap_s: float = 0.0
    trigger: Trigger = "user"
    rewrite: MutationKind | None = None


class TurnWriter:
    """Writes one turn of a session for each of its steps.

    Args:
        agent: The session's agent.
        conversation: Makes its prompts; mutated.
        draws: Mutated.
        odds_ratios: The session's odds relative to all sessions.
    """

    def __init__(
        self, agent: Agent, conversation: Conversation, draws: Draws, odds_ratios: OddsRatios
    ) -> None:
        self.turns: list[Turn] = []
        self.events: list[SessionEvent] = []
        self._agent = agent
        self._conversation = conversation
        self._draws = draws
        self._odds_ratios = odds_ratios
        self._limit_tokens = (
            draws.value(agent.full_tokens) if draws.ends_full else agent.limit_tokens(draws.share())
        )
        self._back = _Return()
        self._said_tokens = 0.0
        conversation.say(draws.value(agent.task_tokens))

    def write(self, step: Step) -> Prompt:
        """Write the next turn; returns its prompt."""
        draws = self._draws
        draws.next_turn()
        prompt = self._conversation.prompt(step.role, self._back.rewrite, self._limit_tokens)
        self.turns.append(
            Turn(
                gap_s=round(self._back.gap_s, _GAP_DIGITS),
                prompt_tokens=prompt.num_tokens,
                output_tokens=round(draws.quantity("output_tokens", step.output_tokens)),
                block_ids=prompt.block_ids,
                trigger=self._back.trigger,
                ended_by=step.ended_by,
                tool_name=step.tool or None,
                tool_command=step.command or None,
                agent=step.role,
            )
        )
        added_tokens = step.added_tokens
        if self._agent.early_added_tokens is not None and len(self.turns) < EARLY_TURNS:
            added_tokens = self._agent.early_added_tokens
        self._said_tokens = draws.quantity("added_tokens", added_tokens)
        self._conversation.say(self._said_tokens)
        return prompt

    def wait(self, step: Step, prompt: Prompt, least_s: float) -> bool:
        """Draw the gap after the last turn, at least `least_s` (s), and its rewrite.

        Returns:
            Whether the session continues; False when it ends with its context full.
        """
        if self._draws.ends_full and self._is_at_limit(prompt):
            return False
        gap_s = max(least_s, self._draws.quantity("gap_s", step.gap_s))
        self._back = _Return(gap_s, self._trigger(step), self._rewrite(step, prompt))
        if self._back.rewrite in _EVENTS:
            self.events.append(SessionEvent(_EVENTS[self._back.rewrite], len(self.turns)))
        return True

    def _trigger(self, step: Step) -> Trigger:
        by_default = 1.0 if step.ended_by == "human" else 0.0
        share = by_default if step.user_share is None else step.user_share
        return "user" if self._draws.happens(share) else "tool_result"

    def _rewrite(self, step: Step, prompt: Prompt) -> MutationKind | None:
        """Draw the rewrite of the next prompt; None extends this one."""
        if self._is_at_limit(prompt):
            if not self._agent.is_full(self._limit_tokens):
                self._limit_tokens = self._agent.limit_tokens(self._draws.share())
            return "compaction"
        shares = leaving_shares(step)
        if self._draws.happens(scaled_chance(sum(shares.values()), self._odds_ratios.rewrite)):
            return self._draws.choice(shares)
        return "tail" if self._draws.happens(step.rewrites.get("tail", 0.0)) else None

    def _is_at_limit(self, prompt: Prompt) -> bool:
        return prompt.num_tokens + self._said_tokens > self._limit_tokens
