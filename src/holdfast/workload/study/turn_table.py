"""A table of the turns of many sessions, grouped and scored by step."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from holdfast.traces.record import Turn
from holdfast.workload.study.distribution import Distribution, distribution_of
from holdfast.workload.study.profile import QUANTITIES, StepProfile
from holdfast.workload.study.scores import Numbers, normal_scores
from holdfast.workload.study.shape import EARLY_TURNS
from holdfast.workload.study.wait import END, wait_kind, wait_name

__all__ = ["TurnRow", "TurnTable"]

_MIN_TURNS = 20
_EARLY = ""
_NONE = float("nan")


@dataclass(frozen=True, slots=True)
class TurnRow:
    """One turn.

    Attributes:
        session: Number of its session, >= 0.
        position: Its index in the session.
        turn: The turn.
        following: The next turn; None for the last.
        rewrite: The next turn's `Mutation.kind`; "" if it extends the prompt.
        num_called: Number of sub-agents that it called.
    """

    session: int
    position: int
    turn: Turn
    following: Turn | None
    rewrite: str
    num_called: int


class TurnTable:
    """Accumulates turns, session by session; add all of them before the first result."""

    def __init__(self) -> None:
        self._columns: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._turns: list[Turn] = []
        self._rewrites: list[str] = []

    def add(self, row: TurnRow) -> None:
        """Add a turn."""
        turn, following = row.turn, row.following
        self._turns.append(turn)
        self._rewrites.append(row.rewrite)
        gap_s = added = by_user = _NONE
        if following is not None:
            gap_s, by_user = following.gap_s, float(following.trigger == "user")
            if row.rewrite in ("", "tail"):
                added = following.prompt_tokens - turn.prompt_tokens
        values = {
            "session": row.session,
            "position": row.position,
            "gap_s": gap_s,
            "output_tokens": turn.output_tokens,
            "added_tokens": added,
            "by_user": by_user,
            "num_called": row.num_called,
        }
        for name, value in values.items():
            self._columns[name].append(value)

    @property
    def sessions(self) -> NDArray[np.int64]:
        """The session of each turn, counted from 0."""
        _, sessions = np.unique(self._column("session"), return_inverse=True)
        return sessions

    def first_steps(self) -> dict[str, int]:
        """Counts of sessions' first steps."""
        sessions = self.sessions
        is_first = np.append(True, sessions[1:] != sessions[:-1])
        return dict(Counter(self._names[is_first].tolist()).most_common())

    def steps(self) -> dict[str, StepProfile]:
        """Steps by name, by descending number of turns."""
        names: list[str] = self._names.tolist()
        sessions = self.sessions
        is_last = np.append(sessions[1:] != sessions[:-1], True)
        following: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for row, name in enumerate(names):
            following[name][END if is_last[row] else names[row + 1]] += 1
        return {
            name: self._step(np.flatnonzero(self._names == name), following[name])
            for name, _ in Counter(names).most_common()
        }

    def early_added_tokens(self) -> Distribution:
        """Tokens that early turns add to the next prompt."""
        return _known(self._column("added_tokens")[self._is_early])

    def scores(self) -> list[Numbers]:
        """For each of `QUANTITIES` the score of each turn among the turns of its step.

        The added tokens of early turns are scored among all early turns.
        """
        by_age = np.where(self._is_early, _EARLY, self._names)
        groups = {name: by_age if name == "added_tokens" else self._names for name in QUANTITIES}
        return [_scores_within(self._column(name), groups[name]) for name in QUANTITIES]

    @cached_property
    def _names(self) -> NDArray[np.str_]:
        """Each turn's tool and command, or its tool kind if there are few such turns."""
        fine = [(wait_name(turn), wait_kind(turn)) for turn in self._turns]
        num_turns = Counter(name for name, _ in fine)
        return np.array([name if num_turns[name] >= _MIN_TURNS else kind for name, kind in fine])

    @property
    def _is_early(self) -> NDArray[np.bool_]:
        return self._column("position") < EARLY_TURNS - 1

    def _column(self, name: str) -> Numbers:
        return np.asarray(self._columns[name], dtype=np.float64)

    def _step(self, rows: NDArray[np.int64], following: Counter[str]) -> StepProfile:
        turns = [self._turns[row] for row in rows]
        tools = Counter((turn.tool_name or "", turn.tool_command or "") for turn in turns)
        tool, command = tools.most_common(1)[0][0]
        rewrites = Counter(self._rewrites[row] for row in rows)
        num_called = self._column("num_called")[rows]
        return StepProfile(
            ended_by=turns[0].ended_by,
            tool=tool if turns[0].ended_by == "tool" else "",
            command=command if len(tools) == 1 else "",
            num_turns=len(turns),
            gap_s=_known(self._column("gap_s")[rows]),
            output_tokens=_known(self._column("output_tokens")[rows]),
            added_tokens=self._added_tokens(rows),
            user_share=_mean_of(self._column("by_user")[rows]),
            num_rewrites={
                kind: num
                for kind, num in sorted(rewrites.items())
                if kind not in ("", "compaction")
            },
            num_called=_known(num_called[num_called > 0]),
            next=dict(following.most_common()),
        )

    def _added_tokens(self, rows: NDArray[np.int64]) -> Distribution:
        added = self._column("added_tokens")
        late = _known(added[rows[~self._is_early[rows]]])
        return late if late.num_values else _known(added[rows])


def _mean_of(values: Numbers) -> float:
    """The mean without NaN; 0 without values."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else 0.0


def _scores_within(values: Numbers, groups: NDArray[np.str_]) -> Numbers:
    scores = np.empty_like(values)
    for name in np.unique(groups):
        scores[groups == name] = normal_scores(values[groups == name])
    return scores


def _known(values: Numbers) -> Distribution:
    return distribution_of(values[~np.isnan(values)])
