"""Working-set admission: turns start while their blocks fit beside reservations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission, Budget
from holdfast.policies.base import AdmissionPolicy, PolicyContext, PolicySpec
from holdfast.policies.ours.recurring_agents import RecurringAgents

__all__ = ["WorkingSetAdmission"]

_MOST_RESERVATIONS = 64


class WorkingSetAdmission(AdmissionPolicy):
    """Admits warm turns by fewest missing blocks, then cold turns by service.

    Among cold turns the one whose tenant was served least comes first. A cold turn that does not
    fit holds back every later cold turn, so that blocks gather for it; warm turns, whose blocks are
    resident, pass it. Blocks come from reservations of sessions that pause for long: a turn that
    does not fit takes those of sessions idle for longer than it takes to recompute their blocks,
    times the turns in the engine for each that waits. There the two costs meet: a reservation
    delays the turns that wait, recomputation delays all. So a pause never costs more than twice
    what it would if its length were known.

    A turn waits only while that saves engine time. One that runs beside others takes part in steps
    that are taken anyway; where these cost more than to compute a reservation's blocks again, it
    yields at once. For the same reason a turn may start in blocks that running turns will grow
    into, where this costs more than to compute the turn again after a preemption.

    A turn is due when it has waited for some times the engine time of what it found ahead of it,
    every prompt computed (see `WaitBound`). A due turn, and any turn while nothing runs, may take
    every reservation, and no turn passes a due one. So a turn waits at most until it is due, and
    then for older due turns and for running turns, which end.

    A promise to retain a session's blocks holds against other turns until one is due or nothing
    runs.

    With priorities a more urgent turn takes a reservation at once, a less urgent one only when it
    is due or nothing runs; the least urgent reservations go first.

    Source: working-set admission, Denning, CACM 11(5), 1968; fewest missing blocks first as in
    CacheWise (arXiv 2606.16824), here only among warm turns: among cold ones it starves long
    prompts. Release of reservations is ski rental, Karlin et al., Algorithmica 3, 1988.
    Differs: the cost of a reservation, and of its release, counts for all turns that it delays; a
    bound on waiting; the engine is never left idle.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="working-set",
        summary="Admits turns while their blocks fit beside the reservations of idle sessions.",
        source="Denning 1968; Karlin et al. 1988",
        differs="A bound on waiting; the engine is never left idle.",
    )

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._agents = context.shared(RecurringAgents)

    def admit(self, waiting: Sequence[Turn], budget: Budget) -> Admission:
        """Choose among `waiting`, in order of arrival, what fits the budget. Pure."""
        blocks, slots = budget.blocks, budget.slots
        if len(waiting) <= slots and sum(t.demand_blocks for t in waiting) <= blocks:
            return Admission(sorted(waiting, key=lambda t: (t.priority, not t.was_running)))
        patience = 1.0 + budget.num_running / max(len(waiting), 1)
        gain_s = self.context.costs.shared_decode_s
        reservations = _Reservations(budget, patience, gain_s, self.idle_s)
        admitted: list[Turn] = []
        released: list[Session] = []
        lacking: list[Turn] = []
        is_held_back = False
        for turn in sorted(waiting, key=lambda turn: self.rank(turn, budget.now_s)):
            if len(admitted) >= slots:
                break
            is_cold = not turn.is_warm
            if is_cold and is_held_back:
                continue
            is_due = turn.is_due(budget.now_s)
            is_idle = not budget.num_running and not admitted
            if turn.demand_blocks > blocks:
                wanted = turn.demand_blocks - blocks
                taken, gained = reservations.take(turn, wanted, takes_any=is_due or is_idle)
                released.extend(taken)
                blocks += gained
            if turn.demand_blocks <= blocks or is_idle or self._may_borrow(turn, blocks, budget):
                blocks -= turn.demand_blocks
                admitted.append(turn)
                continue
            lacking.append(turn)
            if is_due:
                break
            is_held_back |= is_cold
        return Admission(admitted, released, lacking)

    def idle_s(self, session: Session) -> float:
        """Idle time that counts when reservations are released (s). Pure.

        None while its sub-agents are at work: they, not the agent, decide when it returns.
        """
        is_at_work = session.waits_for_agents and session.expected_gap_s is None
        if is_at_work and not self.context.is_gone(session):
            return 0.0
        return super().idle_s(session)

    def rank(self, turn: Turn, now_s: float) -> tuple[float, ...]:
        """Order of admission: the smallest first; see `Turn.rank`. Pure."""
        return turn.rank(now_s)

    def _may_borrow(self, turn: Turn, blocks: int, budget: Budget) -> bool:
        """Whether a turn may start in blocks that running turns will grow into. Pure."""
        if turn.demand_blocks > blocks + budget.growth_blocks:
            return False
        lost_s = self.context.restore_s(turn.footprint_blocks)  # if it is preempted
        return 0.0 < lost_s < self.context.costs.shared_decode_s

    def retains(self, session: Session) -> bool:
        """Whether the session may go on; it keeps its blocks until a turn takes them."""
        return self._agents.may_go_on(session)


@dataclass(slots=True)
class _Reservation:
    """A reservation that may be released.

    Attributes:
        session: The idle session.
        freed_blocks: Blocks that become free (count).
        is_overdue: Whether the session has been idle for longer than recomputation costs.
        restore_s: Engine time to restore those blocks (s).
        is_promised: Whether its client was promised that its blocks are retained.
    """

    session: Session
    freed_blocks: int
    is_overdue: bool
    restore_s: float
    is_promised: bool

    def yields_to(self, turn: Turn, gain_s: float) -> bool:
        """Whether a turn not yet due may take it: never from a more urgent session. Pure.

        Args:
            turn: The turn.
            gain_s: Engine time that the turn saves by running beside others (s).
        """
        priority = self.session.priority
        if priority is None or priority == turn.priority:
            return not self.is_promised and (self.is_overdue or self.restore_s < gain_s)
        return turn.priority < priority


class _Reservations:
    """The reservations that one decision may release, the first to go first.

    Args:
        budget: Knows them; asked when the first is wanted.
        patience: How many times the cost of recomputing its blocks a session may be idle.
        gain_s: Engine time that a turn saves by running beside others (s).
        idle_s: How long a session counts as idle (s).
    """

    def __init__(
        self,
        budget: Budget,
        patience: float,
        gain_s: float,
        idle_s: Callable[[Session], float],
    ) -> None:
        self._budget = budget
        self._patience = patience
        self._gain_s = gain_s
        self._idle_s = idle_s
        self._reservations: list[_Reservation] | None = None

    def take(self, turn: Turn, wanted: int, *, takes_any: bool) -> tuple[list[Session], int]:
        """Reservations to release for so many blocks, and the blocks; none if not enough.

        Args:
            turn: The turn that wants them.
            wanted: Blocks (count).
            takes_any: Whether every reservation may go, even if they do not suffice.
        """
        if self._reservations is None:
            self._reservations = self._look()
        left_s = self._gain_s
        yielding = []
        for reservation in self._reservations:
            if takes_any or reservation.yields_to(turn, left_s):
                yielding.append(reservation)
                left_s -= 0.0 if reservation.is_overdue else reservation.restore_s
        if not takes_any and sum(r.freed_blocks for r in yielding) < wanted:
            return [], 0
        taken: list[Session] = []
        gained = 0
        for reservation in yielding:
            if gained >= wanted:
                break
            gained += reservation.freed_blocks
            taken.append(reservation.session)
        self._reservations = [r for r in self._reservations if r.session not in taken]
        return taken, gained

    def _look(self) -> list[_Reservation]:
        """The first reservations; a later decision sees the next ones."""
        budget = self._budget
        found: list[_Reservation] = []
        for session in islice(budget.reservations(), _MOST_RESERVATIONS):
            freed = budget.freed_by(session)
            restore_s = budget.restore_s(session, freed)
            is_overdue = self._idle_s(session) > self._patience * restore_s
            is_promised = session.retained_until_s > budget.now_s
            found.append(_Reservation(session, freed, is_overdue, restore_s, is_promised))
        return found
