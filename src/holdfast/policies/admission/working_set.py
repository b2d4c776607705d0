"""Working-set admission.

Let in the turns whose blocks fit beside those of sessions with a place.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.core.sessions import Session
from holdfast.policies.admission.waiting import Decision, Room, WaitingTurn

__all__ = ["WorkingSet"]

_PATIENCE = 3.0


class WorkingSet:
    """Fewest missing blocks first, within what fits, with a bound on being passed over.

    A turn is due once it has waited for one and a half times the engine time of what it found
    ahead of it, every prompt computed anew (see `Backlog`): first come, first served with a
    cache that thrashes would make it wait about as long. That is how long the sessions with a
    place may keep it, and the longer they do, the fewer blocks are computed twice.

    A turn that does not fit may take the places of sessions expected to be away for longer than
    three times what it takes to recompute their blocks: holding those costs more than letting go.
    A turn that is due, and any turn while nothing runs, may take every place. Once a turn is due no
    later turn starts before it.

    Source: working-set admission, Denning, CACM 11(5), 1968; fewest missing blocks first as in
    CacheWise (arXiv 2606.16824); giving up a place compares the two costs as in ski rental, Karlin
    et al., Algorithmica 3, 1988.
    Differs: expected absence replaces time already waited; places change hands only at turn
    boundaries; a bound on pass-overs; the engine is never left idle.
    """

    def decide(self, waiting: Sequence[WaitingTurn], room: Room) -> Decision:
        """Choose among `waiting`, in order of arrival, what fits into `room`.

        Mutates `room` only.
        """
        decision = Decision()
        if len(waiting) <= room.slots and sum(t.room_blocks for t in waiting) <= room.blocks:
            decision.offers = sorted(waiting, key=lambda t: (t.priority, not t.was_running))
            return decision
        places: list[Session] | None = None
        patience = _Patience(waiting)
        for turn in sorted(waiting, key=lambda turn: turn.rank(room.now_s)):
            if len(decision.offers) >= room.slots:
                break
            if patience.forbids(turn):
                continue
            is_due = turn.is_due(room.now_s)
            is_idle = not room.num_running and not decision.offers
            if turn.room_blocks > room.blocks:
                if places is None:
                    places = list(room.places())
                self._reclaim(turn, room, places, decision, takes_all=is_due or is_idle)
            if turn.room_blocks <= room.blocks or is_idle:
                room.blocks -= turn.room_blocks
                decision.offers.append(turn)
                patience.note(turn)
            elif is_due:
                break
        return decision

    def _reclaim(
        self,
        turn: WaitingTurn,
        room: Room,
        places: list[Session],
        decision: Decision,
        *,
        takes_all: bool,
    ) -> None:
        gained = 0
        taken: list[Session] = []
        for session in places:
            if gained + room.blocks >= turn.room_blocks:
                break
            freed = room.freed_by(session)
            restore_s = room.restore_s(session, freed)
            if takes_all or room.away_s(session) > _PATIENCE * restore_s:
                gained += freed
                taken.append(session)
        if takes_all or gained + room.blocks >= turn.room_blocks:
            room.blocks += gained
            decision.releases.extend(taken)
            for session in taken:
                places.remove(session)


class _Patience:
    """Whom the offers of one decision would make wait too long.

    Args:
        waiting: Turns in order of arrival; turns are asked about and noted by rising priority.
    """

    def __init__(self, waiting: Sequence[WaitingTurn]) -> None:
        self._waiting = waiting
        self._num_passed: dict[WaitingTurn, int] = {}
        self._last_sequence: int | None = None

    def forbids(self, turn: WaitingTurn) -> bool:
        """Whether an older turn would be passed over once too often. Pure."""
        return self._last_sequence is not None and turn.sequence > self._last_sequence

    def note(self, offered: WaitingTurn) -> None:
        """Count an offer against the older turns that were not offered yet."""
        passed = self._num_passed
        passed[offered] = offered.max_pass_overs  # it waits no more
        for turn in self._waiting:
            if turn.sequence >= offered.sequence:
                break
            if turn.priority > offered.priority or passed.get(turn) == turn.max_pass_overs:
                continue
            passed[turn] = passed.get(turn, turn.num_pass_overs) + 1
            if passed[turn] >= turn.max_pass_overs:
                self._last_sequence = turn.sequence
                break
