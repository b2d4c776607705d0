"""Working-set admission.

Let in the turns whose blocks fit beside those of sessions with a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from holdfast.core.session import Session
from holdfast.core.turn import Admission, Budget, Turn

__all__ = ["WorkingSetAdmission"]

_MOST_PLACES = 64


class WorkingSetAdmission:
    """Warm turns by fewest missing blocks, then cold ones by arrival, within what fits.

    Among cold turns the tenant that was served least comes first. A cold turn that does not fit
    holds back every later cold turn, so that room gathers for it; warm turns, whose blocks are
    there already, go on past it. Room comes from sessions that pause for long: a turn that does
    not fit takes the places of those that have been away for longer than it takes to recompute
    their blocks, times the turns in the engine for each that waits. There the two costs meet:
    holding on delays those who wait, letting go costs engine time that delays everybody. So a pause
    never costs more than twice what it would if its end were known.

    A turn is due once it has waited for some times the engine time of what it found ahead of it,
    every prompt computed anew (see `WaitBound`). A turn that is due, and any turn while nothing
    runs, may take every place, and no turn passes one that is due. So a turn waits at most until it
    is due, and then for the older ones that are and for the turns that run, which end.

    With priorities a place yields to more urgent turns at once, and to less urgent ones only when
    they are due or nothing runs; the least urgent places go first.

    Source: working-set admission, Denning, CACM 11(5), 1968; fewest missing blocks first as in
    CacheWise (arXiv 2606.16824), here only among warm turns: among cold ones it starves long
    prompts. Giving up a place is ski rental, Karlin et al., Algorithmica 3, 1988.
    Differs: what a place costs, and what letting go of it, counts for all it delays; a bound on
    waiting; the engine is never left idle.
    """

    def decide(self, waiting: Sequence[Turn], room: Budget) -> Admission:
        """Choose among `waiting`, in order of arrival, what fits into `room`.

        Mutates `room` only.
        """
        decision = Admission()
        if len(waiting) <= room.slots and sum(t.demand_blocks for t in waiting) <= room.blocks:
            decision.offers = sorted(waiting, key=lambda t: (t.priority, not t.was_running))
            return decision
        places = _Places(room, patience=1.0 + room.num_running / max(len(waiting), 1))
        is_held_back = False
        for turn in sorted(waiting, key=lambda turn: turn.rank(room.now_s)):
            if len(decision.offers) >= room.slots:
                break
            is_cold = not turn.is_warm
            if is_cold and is_held_back:
                continue
            is_due = turn.is_due(room.now_s)
            is_idle = not room.num_running and not decision.offers
            if turn.demand_blocks > room.blocks:
                wanted = turn.demand_blocks - room.blocks
                released, gained = places.give(turn, wanted, gives_all=is_due or is_idle)
                decision.releases.extend(released)
                room.blocks += gained
            if turn.demand_blocks <= room.blocks or is_idle:
                room.blocks -= turn.demand_blocks
                decision.offers.append(turn)
            elif is_due:
                break
            else:
                is_held_back |= is_cold
        return decision


@dataclass(slots=True)
class _Place:
    """One place that may be taken.

    Attributes:
        session: Who holds it.
        freed_blocks: What becomes free (count).
        is_spare: Whether its session has been away for longer than the place is worth.
    """

    session: Session
    freed_blocks: int
    is_spare: bool

    def yields_to(self, turn: Turn) -> bool:
        """Whether a turn that is not due may take it: never from a more urgent session. Pure."""
        priority = self.session.priority
        if priority is None or priority == turn.priority:
            return self.is_spare
        return turn.priority < priority


class _Places:
    """The places that one decision may take back, the first to go first.

    Args:
        room: Knows them; asked when the first is wanted.
        patience: How many times the cost of recomputing its blocks a session may be away for.
    """

    def __init__(self, room: Budget, patience: float) -> None:
        self._room = room
        self._patience = patience
        self._places: list[_Place] | None = None

    def give(self, turn: Turn, wanted: int, *, gives_all: bool) -> tuple[list[Session], int]:
        """Reservations to take for so many blocks, and the blocks they free; none if not enough.

        Args:
            turn: Who wants them.
            wanted: Blocks (count).
            gives_all: Whether every place may go, however little comes of it.
        """
        if self._places is None:
            self._places = self._look()
        yielding = [place for place in self._places if gives_all or place.yields_to(turn)]
        if not gives_all and sum(place.freed_blocks for place in yielding) < wanted:
            return [], 0
        given: list[Session] = []
        gained = 0
        for place in yielding:
            if gained >= wanted:
                break
            gained += place.freed_blocks
            given.append(place.session)
        self._places = [place for place in self._places if place.session not in given]
        return given, gained

    def _look(self) -> list[_Place]:
        """The first places; a later decision sees the next ones."""
        room = self._room
        places: list[_Place] = []
        for session in islice(room.places(), _MOST_PLACES):
            freed = room.freed_by(session)
            is_spare = room.away_s(session) > self._patience * room.restore_s(session, freed)
            places.append(_Place(session, freed, is_spare))
        return places
