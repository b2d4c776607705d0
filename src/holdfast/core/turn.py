"""What admission decides about: turns that wait, the room there is, and the decision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from holdfast.core.lineage import Because
from holdfast.core.session import Session
from holdfast.core.tenants import Tenant

__all__ = ["Admission", "Budget", "Turn"]


@dataclass(slots=True, eq=False)
class Turn:
    """One turn that waits to be let in.

    Attributes:
        request_id: The engine's id.
        session: Whose turn it is.
        priority: The user's explicit priority, lower first.
        sequence: Order of arrival.
        tenant: Who sent it.
        arrived_s: When it arrived (s, host's clock).
        due_s: From when on nobody may be let in before it (s, host's clock).
        cold_s: Engine time it takes if its whole prompt is computed (s).
        ahead_s: What is left of that for later turns to find ahead of them (s).
        because: How its session was found, or why it is new; see `Because`.
        was_running: Whether the engine had let it in and took its blocks back.
        resident_blocks: Leading blocks of the prompt that are cached (count).
        missing_blocks: Blocks of the prompt that are not cached (count).
        loadable_blocks: Those of them that a lower tier holds (count).
        room_blocks: Free blocks that it takes from others: missing, own unheld, output (count).
        need_blocks: Blocks it will fill: prompt and expected output (count).
    """

    request_id: str
    session: Session
    priority: int
    sequence: int
    tenant: Tenant = field(default_factory=Tenant)
    arrived_s: float = 0.0
    due_s: float = math.inf
    cold_s: float = 0.0
    outstanding_s: float = 0.0
    because: Because = "no_match"
    was_running: bool = False
    resident_blocks: int = 0
    missing_blocks: int = 0
    loadable_blocks: int = 0
    demand_blocks: int = 0
    footprint_blocks: int = 0

    def is_due(self, now_s: float) -> bool:
        """Whether nobody may be let in before it any more. Pure."""
        return now_s >= self.due_s

    @property
    def computed_blocks(self) -> int:
        """Blocks of the prompt that must be computed (count). Pure."""
        return self.missing_blocks - self.loadable_blocks

    @property
    def is_warm(self) -> bool:
        """Whether more of the prompt is cached than is missing. Pure."""
        return self.missing_blocks <= self.resident_blocks

    def rank(self, now_s: float) -> tuple[int, int, float, int]:
        """Smaller goes first. Pure.

        By priority; then who is due, who was running, who is warm, who is cold; among the warm
        fewest missing blocks first, among the cold whose tenant was served least, then by arrival.
        """
        if now_s >= self.due_s:
            return self.priority, 0, 0, self.sequence
        if self.was_running:
            return self.priority, 1, 0, self.sequence
        if self.missing_blocks <= self.resident_blocks:
            return self.priority, 2, self.missing_blocks, self.sequence
        return self.priority, 3, self.tenant.served_s, self.sequence


@dataclass(slots=True)
class Budget:
    """What the engine can still give.

    Attributes:
        now_s: Time of the decision (s, host's clock).
        blocks: Free blocks that no place and no running turn's growth has claim to (count; may
            be < 0).
        slots: Turns that may still start (count).
        num_running: Turns running now (count).
        restore_s: Engine time to recompute a session's last so many blocks (s).
        places: Sessions that are away and hold a place, the least urgent first, then the longest
            away.
        freed_by: Blocks that become free for others when a session gives up its place (count).
        away_s: How long a session has been away, or will be by its own word (s).
    """

    now_s: float
    blocks: int
    slots: int
    num_running: int
    restore_s: Callable[[Session, int], float]
    places: Callable[[], Sequence[Session]]
    freed_by: Callable[[Session], int]
    away_s: Callable[[Session], float]


@dataclass(slots=True)
class Admission:
    """Turns to offer to the engine, first first, and sessions that lose their place."""

    offers: list[Turn] = field(default_factory=list)
    releases: list[Session] = field(default_factory=list)

    def offer_while_room(self, turns: Iterable[Turn], room: Budget) -> None:
        """Offer turns in the given order until one does not fit.

        The first is offered in any case while nothing runs. Mutates the decision and `room`.
        """
        for turn in turns:
            is_idle = not room.num_running and not self.offers
            if turn.demand_blocks > room.blocks and not is_idle:
                break
            room.blocks -= turn.demand_blocks
            self.offers.append(turn)
