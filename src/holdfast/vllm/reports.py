"""Reports of the scheduler's decisions: metrics and lines of the decision log.

Process: engine core. Checked on vLLM 0.28 ... 0.32.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nsmallest
from pathlib import Path
from typing import Any

import holdfast
from holdfast.cache.prefix_tree import Node
from holdfast.config import HoldfastConfig
from holdfast.core.bounded_name import bounded_name
from holdfast.core.commands import Command, CommandOutcome, command_name
from holdfast.core.events import Event, SubAgentsChanged
from holdfast.core.hints import IDENTITY_FIELDS, HintNote
from holdfast.core.miss import Attribution
from holdfast.core.miss_record import eviction_record
from holdfast.core.session import Session, SessionState
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission
from holdfast.predict.features import features_of
from holdfast.runtime.eviction_reason import Victim, sessions_using, victim_of
from holdfast.runtime.watchdog import Watchdog
from holdfast.tool_calls.turn_end import TurnEnd
from holdfast.vllm.decision_log import DecisionLog, NoDecisionLog
from holdfast.vllm.metrics import EngineMetrics
from holdfast.vllm.turn_spans import turn_spans_of

__all__ = ["EngineReports"]

_MAX_SESSIONS_LISTED = 16

logger = logging.getLogger(__name__)


class EngineReports:
    """Counts and logs what one scheduler does.

    Args:
        config: Says where the log is, if there is one.
        engine: Number of the engine among the server's data-parallel ones.
        clock: The scheduler's clock (s).
        vllm_config: vLLM's; has the model's name.

    Attributes:
        metrics: The counters.
        watchdog: Looks at them, and at the turns.
    """

    def __init__(
        self, config: HoldfastConfig, engine: int, clock: Callable[[], float], vllm_config: Any
    ) -> None:
        self.metrics = EngineMetrics.from_environment(policy=config.policy)
        self._clock = clock
        self._log: DecisionLog | NoDecisionLog = NoDecisionLog()
        if config.decision_log:
            self._log = DecisionLog(Path(config.decision_log), engine=engine, pid=os.getpid())
        self.watchdog = Watchdog()
        model = str(vllm_config.model_config.served_model_name)
        self._spans = turn_spans_of(is_wanted=config.turn_spans, model=model, engine=engine)
        self._log.write(
            "engine_started", clock(), version=holdfast.__version__, policy=config.policy
        )

    def close(self) -> None:
        """Write what is pending."""
        self.metrics.close()
        self._log.close()
        self._spans.close()

    def turn_arrived(self, turn: Turn, prompt_tokens: int, notes: Sequence[HintNote]) -> None:
        """Log a turn that has arrived; count its hints and what its request names."""
        identity = turn.session.identity
        self.metrics.identified(identity, turn.because)
        self._record(
            "turn_arrived",
            turn,
            session_id=_explicit_id(turn.session),
            parent_session_id=identity.parent_session_id,
            agent_id=identity.agent_id,
            workflow_id=identity.workflow_id,
            client=identity.client,
            is_side_call=identity.is_side_call,
            prompt_tokens=prompt_tokens,
            resident_blocks=turn.resident_blocks,
            missing_blocks=turn.missing_blocks,
            because=turn.because,
            rejected=[str(note) for note in notes if note.outcome == "rejected"],
        )
        self.hinted(turn.session, notes)

    def turn_started(self, turn: Turn) -> None:
        """Count and log a turn that the engine has started."""
        waited_s = self._clock() - turn.arrived_s
        self.metrics.admitted(max(waited_s, 0.0))
        self.metrics.reused(turn.resident_blocks)
        self._spans.started(turn, waited_s)
        missing_blocks, delayed_by = turn.missing_blocks, turn.delayed_by
        self._record(
            "turn_started",
            turn,
            waited_s=waited_s,
            missing_blocks=missing_blocks,
            delayed_by=delayed_by,
        )

    def turn_ended(
        self, turn: Turn, output_tokens: int, trace_headers: Mapping[str, str] | None = None
    ) -> None:
        """Log a turn that has ended, and why it missed; `pause_explained` may follow."""
        gap = turn.session.gap
        if turn.attribution is not None:
            self._missed(turn, turn.attribution)
        self._spans.ended(turn, output_tokens, self._clock(), trace_headers)
        self._record(
            "turn_ended",
            turn,
            is_sub_agent=turn.session.has_parent,
            output_tokens=output_tokens,
            kind=gap.kind,
            tool=gap.tool,
        )

    def hinted(self, session: Session, notes: Iterable[HintNote]) -> None:
        """Count the outcomes of hints, and log what is not plain from the turn itself."""
        for note in notes:
            self.metrics.hinted(note.field, note.outcome)
            if note.outcome == "accepted" and note.field in IDENTITY_FIELDS:
                continue
            self._log.write(
                "hint",
                self._clock(),
                session=session.number,
                turn=session.num_turns,
                field=note.field,
                outcome=note.outcome,
                asked=note.asked,
                reason=note.reason,
            )

    def hints_carried_out(self, notes: Iterable[tuple[Session, HintNote]]) -> None:
        """Count and log the outcomes of hints after their requests' arrival."""
        for session, note in notes:
            self.hinted(session, (note,))

    def pause_explained(self, pause: tuple[Session, int], end: TurnEnd) -> None:
        """Record what ended a session's turn. Any thread may call it.

        Args:
            pause: The session, and the number of its turn.
            end: What ended it.
        """
        session, turn = pause
        gap = features_of(end)
        self._log.write(
            "pause_explained",
            self._clock(),
            session=session.number,
            turn=turn,
            kind=gap.kind,
            tool=gap.tool,
        )

    def observe(self, event: Event) -> None:
        """Log for how many sub-agents a session waits, as they begin and end."""
        if not isinstance(event, SubAgentsChanged):
            return
        session, join = event.session, event.session.join
        if join is not None:
            self._log.write(
                "waits_for_agents",
                self._clock(),
                session=session.number,
                turn=session.num_turns,
                waits_for=f"{join.num_awaited} of {join.num_sub_agents}",
                is_trusted=join.is_trusted,
            )

    def set_sessions(
        self, sessions: Sequence[Session], explained: Sequence[tuple[tuple[Session, int], TurnEnd]]
    ) -> None:
        """Set how many sessions are in each state.

        Args:
            sessions: All that are remembered.
            explained: Pauses and what began them, not taken in yet: an idle engine takes in none.
        """
        states = Counter(session.state for session in sessions)
        at_tool = (s for s in sessions if s.state is SessionState.AT_TOOL)
        num_waiting = sum(session.waits_for_agents for session in at_tool)
        for (session, turn), end in explained:
            is_current = session.num_turns == turn and session.state is SessionState.AT_TOOL
            if is_current and end.kind == "human" and states[SessionState.AT_TOOL]:
                states[SessionState.AT_TOOL] -= 1
                states[SessionState.HUMAN_AWAY] += 1
        states[SessionState.AT_TOOL] -= num_waiting
        by_state = {state.value: states[state] for state in SessionState}
        self.metrics.set_sessions({**by_state, "waiting_for_agents": num_waiting})
        self._watch(by_state)

    def _watch(self, num_by_state: Mapping[str, int]) -> None:
        """Set the watchdog's gauges, and count and log its alarms."""
        watchdog, metrics = self.watchdog, self.metrics
        metrics.set_cache_use(
            watchdog.hit_ratio, watchdog.possible_hit_ratio, watchdog.thrash_index
        )
        waiting, running = (
            num_by_state[state.value] for state in (SessionState.WAITING, SessionState.RUNNING)
        )
        for alarm in watchdog.look(self._clock(), metrics.pulse(waiting, running)):
            metrics.alarmed(alarm.kind)
            logger.warning("%s", alarm.message)
            self._log.write("alarm", self._clock(), kind=alarm.kind, message=alarm.message)

    def commanded(self, command: Command, outcome: CommandOutcome) -> None:
        """Count and log a command of an application; the tenant's name is a secret."""
        name = command_name(command)
        self.metrics.commanded(name, outcome.outcome)
        asked = {
            key: bounded_name(value) if isinstance(value, str) else value
            for key in ("session_id", "workflow_id", "tool", "expected_s")
            if (value := getattr(command, key, None)) not in (None, "")
        }
        self._log.write(
            "command",
            self._clock(),
            command=name,
            outcome=outcome.outcome,
            because=outcome.reason,
            **asked,
        )

    def reservations_released(self, admission: Admission) -> None:
        """Log the sessions that lost their reservation."""
        for session in admission.released:
            self._log.write(
                "place_taken",
                self._clock(),
                session=session.number,
                rate=session.retention_priority,
            )

    def evicted(self, node: Node[Any] | None, num_blocks: int) -> Victim:
        """Count and log evicted blocks of a node; None if no session uses it any more."""
        victim = victim_of(node)
        self.metrics.evicted(victim.reason, num_blocks)
        if node is not None and self._log.is_written:
            users = sessions_using(node)
            self._log.write(
                "evicted",
                self._clock(),
                reason=victim.reason,
                num_blocks=num_blocks,
                depth_blocks=node.start + node.free_blocks.num_blocks,
                num_sessions=len(users),
                sessions=nsmallest(_MAX_SESSIONS_LISTED, (s.number for s in users)),
            )
        return victim

    def _missed(self, turn: Turn, attribution: Attribution) -> None:
        """Count and log why tokens of a turn's prompt were missing."""
        self.metrics.attributed(attribution, turn.session.identity.client)
        self.watchdog.turn_ended(attribution)
        if not self._log.is_written:
            return
        known = attribution.known
        lost_s = {reason: round(s, 6) for reason, s in attribution.lost_s.items()}
        self._record(
            "missed",
            turn,
            session_id=_explicit_id(turn.session),
            cache_tokens=attribution.cache_tokens,
            prompt_tokens=attribution.prompt_tokens,
            cached_tokens=attribution.cached_tokens,
            missed=attribution.missed,
            lost_s=lost_s,
            mutated_at_tokens=known.mutated_at_tokens,
            against_turn=known.against_turn,
            change=attribution.change,
            evicted=eviction_record(attribution, self._clock()),
            waited_s=turn.waited_s,
            delayed_by=turn.delayed_by,
        )

    def _record(self, event: str, turn: Turn, **fields: Any) -> None:
        session = turn.session
        self._log.write(
            event,
            self._clock(),
            request=bounded_name(turn.request_id),
            session=session.number,
            turn=session.num_turns,
            **fields,
        )


def _explicit_id(session: Session) -> str | None:
    """The id that the client gave the session; a digest where it is long."""
    if session.group is None:
        return None
    return session.group.rpartition("\x00")[2]
