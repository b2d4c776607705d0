"""Generates families of sessions: main agents, each followed by its sub-agents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from holdfast.traces.record import Session
from holdfast.workload.generator.conversation import Conversation
from holdfast.workload.generator.draws import Draws
from holdfast.workload.generator.odds import AgentShares, OddsRatios, scaled_chance
from holdfast.workload.generator.parameters import MAIN, Agent, Calls, Parameters
from holdfast.workload.generator.prompt import Heads, Prompt, PromptMaker
from holdfast.workload.generator.steps import steps_of
from holdfast.workload.generator.turns import TurnWriter

__all__ = ["iterate_families"]


def iterate_families(
    parameters: Parameters, seed: int, *, name: str
) -> Iterator[tuple[Session, ...]]:
    """Generate families endlessly: a main agent, each session before its sub-agents.

    Equal arguments give equal families. Block ids are comparable in all families of one call.

    Args:
        parameters: A set that passes `check_parameters`.
        seed: Random seed, >= 0.
        name: Prefix of the session ids.
    """
    maker = PromptMaker(parameters.block_size_tokens)
    kinds = {
        agent_name: _AgentKind(
            agent, Heads(maker, agent), _agent_shares(agent, parameters.percents)
        )
        for agent_name, agent in parameters.agents.items()
    }
    for index in count():
        rng = np.random.default_rng((seed, index))
        main_id = f"{name}-{seed}-{index:04d}"
        yield _Family(parameters, maker, kinds, rng, f"{name}:{seed}", main_id).sessions()


@dataclass(frozen=True, slots=True)
class _AgentKind:
    """An agent with the state that all its sessions share."""

    agent: Agent
    heads: Heads
    shares: AgentShares | None

    def odds_ratios(self, draws: Draws) -> OddsRatios:
        """The odds ratios of one session."""
        if self.agent.dependence is None or self.shares is None:
            return OddsRatios()
        return OddsRatios.of(self.agent.dependence, self.shares, draws)


def _agent_shares(agent: Agent, percents: tuple[float, ...]) -> AgentShares | None:
    dependence = agent.dependence
    return None if dependence is None else AgentShares.of(agent, dependence, percents)


@dataclass(frozen=True, slots=True)
class _Caller:
    """The turn that starts a session.

    `prompt` is set if the session starts with it. `join_turn` is the turn that waits for the
    session's end, if one does.
    """

    session_id: str
    turn_index: int
    prompt: Prompt | None
    join_turn: int | None


@dataclass(slots=True)
class _Family:
    """Writes one family."""

    parameters: Parameters
    maker: PromptMaker
    kinds: dict[str, _AgentKind]
    rng: np.random.Generator
    source: str
    main_id: str
    num_subagents: int = 0

    def sessions(self) -> tuple[Session, ...]:
        """The family's sessions, the main agent's first."""
        return tuple(self._write(MAIN, self.main_id, None))

    def _write(self, name: str, session_id: str, caller: _Caller | None) -> list[Session]:
        """Write a session and its sub-agents."""
        kind = self.kinds[name]
        agent = kind.agent
        draws = Draws(self.rng, self.parameters.percents, agent.dependence)
        label = draws.choice(agent.labels) if agent.labels else name
        opening = None if caller is None else caller.prompt
        conversation = Conversation(agent, self.maker, kind.heads, draws, opening)
        odds_ratios = kind.odds_ratios(draws)
        writer = TurnWriter(agent, conversation, draws, odds_ratios)
        called: list[Session] = []
        for step in steps_of(agent, draws, odds_ratios.human):
            prompt = writer.write(step)
            least_s = 0.0
            if step.calls is not None and draws.happens(
                scaled_chance(step.calls.share, odds_ratios.call)
            ):
                started = self._call(step.calls, draws, session_id, len(writer.turns) - 1, prompt)
                called += [session for family in started for session in family]
                if step.calls.is_joined:
                    least_s = max(self._duration_s(family[0]) for family in started)
            if not writer.wait(step, prompt, least_s):
                break
        num_turns = len(writer.turns)
        session = Session(
            session_id,
            self.parameters.block_size_tokens,
            tuple(writer.turns),
            self.source,
            parent_id=None if caller is None else caller.session_id,
            parent_turn=None if caller is None else caller.turn_index,
            agent=label,
            join_turn=None if caller is None else caller.join_turn,
            events=tuple(event for event in writer.events if event.turn_index < num_turns),
        )
        # No turn waits for the calls of the last turn.
        unmet = (session_id, num_turns)
        return [
            session,
            *(
                replace(each, join_turn=None) if (each.parent_id, each.join_turn) == unmet else each
                for each in called
            ),
        ]

    def _call(
        self, calls: Calls, draws: Draws, caller_id: str, turn_index: int, prompt: Prompt
    ) -> list[list[Session]]:
        """Write the sub-agents that one turn calls, each with its own."""
        caller = _Caller(
            caller_id,
            turn_index,
            prompt if calls.shares_prompt else None,
            turn_index + 1 if calls.is_joined else None,
        )
        families = []
        for _ in range(max(1, round(draws.value(calls.num)))):
            self.num_subagents += 1
            session_id = f"{self.main_id}/{self.num_subagents}"
            families.append(self._write(calls.agent, session_id, caller))
        return families

    def _duration_s(self, session: Session) -> float:
        """Duration of a session on an engine without queueing."""
        answers = sum(turn.output_tokens for turn in session.turns)
        gaps_s = sum(turn.gap_s for turn in session.turns)
        return gaps_s + answers * self.parameters.answer_s_per_token
