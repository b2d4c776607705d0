"""One stream of requests, and what its engines are told about it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from holdfast.client.control import ControlChannel

__all__ = ["Session"]

_clock = itertools.count(1)


@dataclass(slots=True, eq=False)
class Session:
    """A stream of requests, each of which extends the last.

    Made by the blocks `session` and `agent`. Safe for threads.

    Attributes:
        id: Names the stream in the engine.
        agent_id: The agent whose calls these are; None if not named.
        parent: The session that started this one, or its id; None if none did.
        is_last_turn: Whether its next request is its last one. Set it before that request, and
            the engine frees the session's cache as soon as the answer is complete.
        channels: Engines that got a request of it; commands go to these.
        last_request: Larger for sessions whose last request is later; 0 before the first one.
    """

    id: str
    agent_id: str | None = None
    parent: Session | str | None = None
    is_last_turn: bool = False
    channels: set[ControlChannel] = field(default_factory=set)
    last_request: int = 0

    def parent_id(self, channel: ControlChannel | None = None) -> str | None:
        """Return the id of the next session outside that the engine knows. Pure.

        Args:
            channel: The engine; None for any.
        """
        if not isinstance(self.parent, Session):
            return self.parent
        channels = self.parent.channels
        is_known = bool(channels) if channel is None else channel in channels
        # An outer session without requests, such as one around a workflow, is no agent.
        return self.parent.id if is_known else self.parent.parent_id(channel)

    def note_request(self, channel: ControlChannel) -> None:
        """Note that a request goes to an engine, as commands then do. Mutates."""
        self.channels.add(channel)
        self.last_request = next(_clock)

    def start_tool(self, name: str, expected_s: float | None = None) -> None:
        """Tell the engines that a tool of this session runs.

        Args:
            name: The tool; several may run at once, also of one name.
            expected_s: Expected duration (s); None if not known.
        """
        for channel in tuple(self.channels):
            channel.start_tool(self.id, name, expected_s)

    def finish_tool(self, name: str) -> None:
        """Tell the engines that one tool of this name has ended."""
        for channel in tuple(self.channels):
            channel.finish_tool(self.id, name)

    def close(self) -> None:
        """Tell the engines that no request follows; they free the session's cache."""
        for channel in tuple(self.channels):
            channel.close_session(self.id)
