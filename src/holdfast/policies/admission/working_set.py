"""Working-set admission: let in the turns whose blocks fit beside those of the sessions that hold a place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.core.sessions import Session

__all__ = ["Decision", "Room", "WaitingTurn", "WorkingSet"]


@dataclass(slots=True, eq=False)
class WaitingTurn:
    """One turn that waits to be let in.

    Attributes:
        request_id: The engine's id.
        session: Whose turn it is.
        priority: The user's explicit priority, lower first.
        sequence: Order of arrival.
        num_pass_overs: Turns that arrived later and were let in first (count).
        missing_blocks: Blocks of the prompt that must be computed (count).
        room_blocks: Free blocks that it takes away from others: missing, own unheld, and output (count).
    """

    request_id: str
    session: Session
    priority: int
    sequence: int
    num_pass_overs: int = 0
    missing_blocks: int = 0
    room_blocks: int = 0


@dataclass(slots=True)
class Room:
    """What the engine can still give.

    Attributes:
        blocks: Free blocks that no place-holder and no running turn's growth has claim to (count, may be < 0).
        slots: Turns that may still start (count).
        num_running: Turns running now (count).
        restore_s_per_block: Measured time to recompute a block (s).
        places: Sessions that are away and hold a place, first to give it up first.
        freed_by: Blocks that become free for others when a session gives up its place (count).
        away_s: Expected time until a session returns (s).
    """

    blocks: int
    slots: int
    num_running: int
    restore_s_per_block: float
    places: Callable[[], Sequence[Session]]
    freed_by: Callable[[Session], int]
    away_s: Callable[[Session], float]


@dataclass(slots=True)
class Decision:
    """Turns to offer to the engine, first first, and sessions that lose their place."""

    offers: list[WaitingTurn] = field(default_factory=list)
    releases: list[Session] = field(default_factory=list)


class WorkingSet:
    """Fewest missing blocks first, within what fits, with a bound on being passed over.

    Source: working-set admission, Denning, CACM 11(5), 1968; fewest missing blocks first as in CacheWise
    (arXiv 2606.16824).
    Differs: places are given and taken back at turn boundaries by comparing the expected absence with the time
    to recompute; a bound on pass-overs; the engine is never left idle.
    """

    def __init__(self, max_pass_overs: int, patience: float = 1.0) -> None:
        self._max_pass_overs = max_pass_overs
        self._patience = patience

    def decide(self, waiting: Sequence[WaitingTurn], room: Room) -> Decision:
        """Choose among `waiting` what fits into `room`. Pure."""
        decision = Decision()
        queue = sorted(waiting, key=self._rank)
        places: list[Session] | None = None
        num_active = room.num_running
        for turn in queue:
            if len(decision.offers) >= room.slots:
                break
            is_due = turn.num_pass_overs >= self._max_pass_overs
            if turn.room_blocks > room.blocks:
                if places is None:
                    places = [s for s in room.places()]
                self._reclaim(turn, room, places, decision, force=is_due or not num_active)
            if turn.room_blocks <= room.blocks or not num_active:
                room.blocks -= turn.room_blocks
                decision.offers.append(turn)
                num_active += 1
            elif is_due:
                break
        return decision

    def _rank(self, turn: WaitingTurn) -> tuple[int, bool, int, int]:
        is_fresh = turn.num_pass_overs < self._max_pass_overs
        return turn.priority, is_fresh, turn.missing_blocks if is_fresh else 0, turn.sequence

    def _reclaim(
        self, turn: WaitingTurn, room: Room, places: list[Session], decision: Decision, *, force: bool
    ) -> None:
        gained = 0
        taken: list[Session] = []
        for session in places:
            if gained + room.blocks >= turn.room_blocks:
                break
            if session is turn.session:
                continue
            freed = room.freed_by(session)
            if not force and not self._may_yield(session, turn, freed, room):
                continue
            gained += freed
            taken.append(session)
        if gained + room.blocks >= turn.room_blocks or force:
            room.blocks += gained
            decision.releases.extend(taken)
            for session in taken:
                places.remove(session)

    def _may_yield(self, session: Session, turn: WaitingTurn, freed: int, room: Room) -> bool:
        restore_s = freed * room.restore_s_per_block
        return room.away_s(session) > self._patience * restore_s
