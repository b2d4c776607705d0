"""Selects the sessions of a run and cuts their gaps and turns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from holdfast.errors import ConfigError
from holdfast.traces.record import Session
from holdfast.traces.scaling import TokenScale

__all__ = ["Selection", "SessionSelection"]

_HOPELESS_SESSIONS = 1_000


@dataclass(frozen=True, slots=True)
class Selection:
    """The sessions of a run.

    Attributes:
        sessions: In start order.
        num_outgrown: Sessions that were left out because they outgrow the model's context.
    """

    sessions: tuple[Session, ...]
    num_outgrown: int


@dataclass(frozen=True, slots=True)
class SessionSelection:
    """The load options that choose and cut sessions.

    Attributes:
        num_sessions: Number of sessions, > 0; None takes all.
        gap_cap_s: Longest gap, in trace time; longer ones are cut to it. None keeps all.
        max_model_len: Leaves out sessions whose prompt plus answer is longer, in replayed tokens.
            None keeps all.
        token_scale: Replayed tokens per trace token, > 0.
        max_turns: Cuts each session to this many turns. None keeps all.
        is_tree: Whether a session's sub-agents come with it and do not count.
    """

    num_sessions: int | None = None
    gap_cap_s: float | None = None
    max_model_len: int | None = None
    token_scale: float = 1.0
    max_turns: int | None = None
    is_tree: bool = False

    def __post_init__(self) -> None:
        if self.num_sessions is not None and self.num_sessions < 1:
            raise ConfigError(f"sessions is {self.num_sessions!r}; expected at least 1")
        if self.gap_cap_s is not None and not self.gap_cap_s >= 0:
            raise ConfigError(f"gap-cap-s is {self.gap_cap_s!r}; expected seconds >= 0")
        if self.max_model_len is not None and self.max_model_len < 2:
            raise ConfigError(f"max-model-len is {self.max_model_len!r}; expected at least 2")
        if self.max_turns is not None and self.max_turns < 1:
            raise ConfigError(f"turns is {self.max_turns!r}; expected at least 1")

    def select(self, sessions: Iterable[Session]) -> Selection:
        """Select sessions in order until there are `num_sessions`; reads no further.

        Stops after a thousand sessions in a row that outgrow the context, so that an endless
        generator is a safe source.

        Raises:
            ConfigError: No session remains, or the token scale does not fit the blocks.
        """
        chosen: list[Session] = []
        num_outgrown = num_outgrown_in_a_row = num_counted = 0
        names: set[str] = set()
        for session in map(self._with_first_turns, sessions):
            is_counted = not (self.is_tree and session.parent_id in names)
            if is_counted and num_counted == self.num_sessions:
                break
            scale = TokenScale.from_factor(
                self.token_scale, trace_block_tokens=session.block_size_tokens
            )
            if self.max_model_len is not None and scale.peak_tokens(session) > self.max_model_len:
                num_outgrown += 1
                num_outgrown_in_a_row += 1
                if num_outgrown_in_a_row == _HOPELESS_SESSIONS:
                    break
                continue
            num_outgrown_in_a_row = 0
            num_counted += is_counted
            names.add(session.session_id)
            chosen.append(self._with_cut_gaps(session))
            if not self.is_tree and num_counted == self.num_sessions:
                break
        if not chosen:
            raise ConfigError(
                f"no session is left to run; {num_outgrown} outgrow max-model-len "
                f"{self.max_model_len!r}",
                hint="raise --max-model-len or lower --token-scale",
            )
        return Selection(tuple(chosen), num_outgrown)

    def _with_first_turns(self, session: Session) -> Session:
        if self.max_turns is None or len(session.turns) <= self.max_turns:
            return session
        return replace(session, turns=session.turns[: self.max_turns])

    def _with_cut_gaps(self, session: Session) -> Session:
        cap_s = self.gap_cap_s
        if cap_s is None or all(turn.gap_s <= cap_s for turn in session.turns):
            return session
        turns = tuple(replace(turn, gap_s=min(turn.gap_s, cap_s)) for turn in session.turns)
        return replace(session, turns=turns)
