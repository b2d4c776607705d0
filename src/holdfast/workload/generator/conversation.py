"""Makes the prompts of one session, one branch or more for each role."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from holdfast.workload.generator.draws import Draws
from holdfast.workload.generator.parameters import Agent
from holdfast.workload.generator.prompt import Heads, Prompt, PromptMaker
from holdfast.workload.study.mutations import MutationKind

__all__ = ["Conversation"]

_MAX_BRANCHES = 16


@dataclass(slots=True)
class _Branch:
    """A branch of a role's prompts: its last prompt and the role's turn of it."""

    prompt: Prompt
    turn_index: int


@dataclass(slots=True)
class _RoleState:
    """A role: its branches, current one last, and the tokens since its last prompt."""

    branches: list[_Branch] = field(default_factory=list)
    num_turns: int = 0
    unread_tokens: float = 0.0


class Conversation:
    """A session's growing conversation; makes each role's next prompt.

    Args:
        agent: The session's agent.
        maker: Makes the prompts; mutated.
        heads: The agent's shared heads; mutated.
        draws: The session's random draws; mutated.
        caller: The caller's prompt, if all prompts start with it instead of a head.
    """

    def __init__(
        self, agent: Agent, maker: PromptMaker, heads: Heads, draws: Draws, caller: Prompt | None
    ) -> None:
        self._agent = agent
        self._maker = maker
        self._heads = heads
        self._draws = draws
        self._caller = caller
        self._roles = {name: _RoleState() for name in agent.roles}
        self._said_tokens = 0.0

    def say(self, num_tokens: float) -> None:
        """Add tokens to every role's next prompt; negative values remove some. Mutates."""
        self._said_tokens = num_tokens
        for role in self._roles.values():
            role.unread_tokens += num_tokens

    def prompt(
        self, role_name: str, rewrite: MutationKind | None, limit_tokens: float = math.inf
    ) -> Prompt:
        """Make the next prompt of a role; mutates.

        Args:
            role_name: The role.
            rewrite: Kind of rewrite of the role's last prompt, if there is one; None extends it.
            limit_tokens: Longest rewritten prompt.
        """
        role = self._roles[role_name]
        if not self._agent.roles[role_name].keeps_history:
            prompt = self._maker.extended(self._first(role_name), self._said_tokens)
        elif not role.branches:
            prompt = self._maker.extended(self._first(role_name), role.unread_tokens)
            role.branches.append(_Branch(prompt, 0))
        else:
            prompt = self._next(role, rewrite, limit_tokens)
            role.branches[-1] = _Branch(prompt, role.num_turns)
        role.num_turns += 1
        role.unread_tokens = 0.0
        return prompt

    def _first(self, role_name: str) -> Prompt:
        tokens = self._draws.trait(
            "first_prompt_tokens", self._agent.roles[role_name].prompt_tokens
        )
        if self._caller is not None:
            return self._maker.extended(self._caller, tokens)
        return self._heads.first_prompt(role_name, self._draws, tokens)

    def _next(self, role: _RoleState, rewrite: MutationKind | None, limit_tokens: float) -> Prompt:
        """Make the next prompt of a role; moves the branch it continues to the end."""
        last = role.branches[-1].prompt
        added_tokens = role.unread_tokens
        if rewrite is None:
            return self._maker.extended(last, added_tokens)
        if rewrite == "tail":
            lost_tokens = self._draws.value(self._agent.rewrites["tail"].kept_tokens)
            kept = self._maker.cut(last, max(0.0, last.num_tokens - lost_tokens))
            return self._to_size(kept, last.num_tokens + added_tokens)
        if rewrite == "return" and len(role.branches) > 1:
            self._go_back(role)
            return self._maker.extended(role.branches[-1].prompt, added_tokens)
        if rewrite == "return":
            # The first return of a session starts a branch for later returns.
            rewrite = "branch" if "branch" in self._agent.rewrites else rewrite
        if rewrite != "compaction":
            role.branches.append(role.branches[-1])
            del role.branches[:-_MAX_BRANCHES]
        return self._replaced(last, rewrite, limit_tokens)

    def _go_back(self, role: _RoleState) -> None:
        """Make current the branch whose last prompt is closest to the drawn turns ago."""
        turns_back = self._draws.value(self._agent.rewrites["return"].turns_back)
        wanted = role.num_turns - turns_back
        branch = min(role.branches[:-1], key=lambda branch: abs(branch.turn_index - wanted))
        role.branches.remove(branch)
        role.branches.append(branch)

    def _replaced(self, last: Prompt, kind: MutationKind, limit_tokens: float) -> Prompt:
        rewrite = self._agent.rewrites[kind]
        size_tokens = last.num_tokens * self._draws.value(rewrite.size_ratio)
        size_tokens = min(size_tokens + self._draws.value(rewrite.added_tokens), limit_tokens)
        kept_tokens = min(self._draws.value(rewrite.kept_tokens), max(0.0, size_tokens))
        return self._to_size(self._maker.cut(last, kept_tokens), size_tokens)

    def _to_size(self, kept: Prompt, size_tokens: float) -> Prompt:
        return self._maker.extended(kept, max(1.0, size_tokens) - kept.num_tokens)
