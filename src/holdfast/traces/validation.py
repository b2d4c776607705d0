"""Checks that the sessions of a reading are consistent with each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from holdfast.errors import TraceError
from holdfast.traces.formats.quantities import MAX_TOKENS
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.record import Session

__all__ = ["BlockChecks", "SessionLinks"]


class SessionLinks:
    """Checks ids and parent links of the sessions of a reading; remembers each id.

    Ids are unique; a sub-agent follows its parent and names turns that the parent has.
    """

    def __init__(self) -> None:
        # Number of turns and source of each session.
        self._known: dict[str, tuple[int, str]] = {}
        self._left_out: set[str] = set()

    def begin_file(self) -> None:
        """Note that the next sessions come from another file."""
        self._left_out.clear()

    def kept(self, session: Session, file: TraceFile, *, is_ordered: bool = True) -> Session | None:
        """Check the next session and remember it.

        Args:
            session: The session.
            file: Receives the problems.
            is_ordered: Whether parents come first; otherwise a link to a later parent is removed
                without a problem.

        Returns:
            The session without broken links. None for a second session of its id, for a sub-agent
            of one, and for an implausibly long prompt or answer.

        Raises:
            TraceError: There is a problem, and nothing may be left out.
        """
        problem = self._second(session)
        if problem is not None:
            file.refuse(problem)
            self._left_out.add(session.session_id)
            return None
        problem = _too_long(session)
        if problem is not None:
            file.refuse(problem)
            return None
        for problem in self._broken_links(session) if is_ordered else ():
            file.refuse(problem)
        session = self._with_whole_links(session)
        self._known[session.session_id] = (len(session.turns), session.source)
        return session

    def _second(self, session: Session) -> TraceError | None:
        where = f"session {session.session_id!r}"
        if session.session_id in self._known:
            _, first = self._known[session.session_id]
            return TraceError(
                f"a second session of that id; the first is in {first}",
                source=session.source,
                where=where,
                hint="remove one of the two; with --lenient the first is read",
            )
        if session.parent_id is not None and session.parent_id in self._left_out:
            message = f"its parent {session.parent_id!r} is a second session of that id"
            return TraceError(message, source=session.source, where=where)
        return None

    def _broken_links(self, session: Session) -> Iterator[TraceError]:
        if session.parent_id is None:
            return
        where = f"session {session.session_id!r}"
        if session.parent_id not in self._known:
            yield TraceError(
                f"parent {session.parent_id!r} is not among the sessions before it",
                source=session.source,
                where=where,
            )
            return
        num_turns, _ = self._known[session.parent_id]
        for name, turn_index in (
            ("parent_turn", session.parent_turn),
            ("join_turn", session.join_turn),
        ):
            if turn_index is not None and turn_index >= num_turns:
                yield TraceError(
                    f"turn {turn_index} of parent {session.parent_id!r}, which has {num_turns}",
                    source=session.source,
                    where=f"{where}, {name}",
                )

    def _with_whole_links(self, session: Session) -> Session:
        num_turns, _ = self._known.get(session.parent_id or "", (0, ""))
        links = (session.parent_turn, session.join_turn)
        parent_turn, join_turn = (None if at is None or at >= num_turns else at for at in links)
        parent_id = session.parent_id if session.parent_id in self._known else None
        if (parent_id, parent_turn, join_turn) == (session.parent_id, *links):
            return session
        return replace(session, parent_id=parent_id, parent_turn=parent_turn, join_turn=join_turn)


def _too_long(session: Session) -> TraceError | None:
    for index, turn in enumerate(session.turns):
        longest = max(turn.prompt_tokens, turn.output_tokens)
        if longest > MAX_TOKENS:
            return TraceError(
                f"a prompt or an answer of {longest} tokens; expected at most {MAX_TOKENS}",
                source=session.source,
                where=f"session {session.session_id!r}, turn {index}",
            )
    return None


class BlockChecks:
    """Checks that equal block ids mean equal prefixes; remembers each distinct block.

    Only files of Holdfast's own format can break this, since their ids are used unchanged.
    """

    def __init__(self) -> None:
        self._parents: dict[int, int] = {}

    def problems(self, session: Session) -> Iterator[TraceError]:
        """Yield the problems of a session's blocks; remembers the blocks."""
        parents = self._parents
        known: tuple[int, ...] = ()
        for index, turn in enumerate(session.turns):
            parent = -1
            for block_id in turn.block_ids if turn.block_ids != known else ():
                if parents.setdefault(block_id, parent) != parent:
                    yield TraceError(
                        f"block {block_id} follows another block than before; expected equal "
                        "ids for equal prefixes only",
                        source=session.source,
                        where=f"session {session.session_id!r}, turn {index}",
                    )
                    break
                parent = block_id
            known = turn.block_ids
