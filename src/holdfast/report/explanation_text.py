"""An explanation as text for a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from holdfast.report.cells import UNKNOWN
from holdfast.report.explanation import Explanation, SessionMisses
from holdfast.report.remedies import MORE_SPACE
from holdfast.report.tables import Column, ReportTable, RowGroup
from holdfast.report.terminal import terminal_table

__all__ = ["explanation_text"]

_AS_ABOVE: Final = "Fewer sessions or more space, as above"
_PLAN: Final = (
    "How many sessions fit, and what a host tier adds: holdfast plan LOG, or holdfast plan URL"
)


def explanation_text(found: Explanation, num_sessions: int) -> Group:
    """The verdict, sums, causes with what to do, and the worst sessions; pure.

    Args:
        found: The explanation.
        num_sessions: Sessions to show at most, and turns of each (count).
    """
    parts: list[RenderableType] = [Text(found.verdict, style="bold"), Text()]
    if found.prompt_tokens:
        parts.append(terminal_table(_sums(found)))
    told = _Told()
    if found.causes:
        parts.append(terminal_table(_causes(found)))
        for number, cause in enumerate(found.causes, 1):
            sentence = cause.sentence[0].upper() + cause.sentence[1:]
            parts.append(Text(told.once(f"{number}. {cause.reason}: {sentence}. {cause.remedy}")))
    if found.waits:
        parts += [Text(), terminal_table(_waits(found))]
        parts += [Text(told.once(f"{one.reason}: {one.remedy}")) for one in found.waits]
    if told.is_told:
        parts += [Text(), Text(_PLAN)]
    if found.num_waiting:
        waiting = ", ".join(f"{n:,} {reason}" for reason, n in found.num_waiting.items())
        parts += [Text(), Text(f"Turns that wait now, by reason: {waiting}")]
    for policy, counts in found.actions.items():
        done = ", ".join(f"{action} {n:,}" for action, n in counts.items())
        parts += [Text(f"{policy}: {done}")]
    for session in [one for one in found.sessions if one.turns][:num_sessions]:
        parts += [Text(), *_session_lines(session, num_sessions)]
    return Group(*parts)


@dataclass(slots=True)
class _Told:
    """Leaves out the remedy of several causes once it stands above."""

    is_told: bool = False

    def once(self, text: str) -> str:
        """The text; mutates."""
        if MORE_SPACE not in text:
            return text
        if self.is_told:
            return text.replace(MORE_SPACE, _AS_ABOVE)
        self.is_told = True
        return text


def _sums(found: Explanation) -> ReportTable:
    total = found.prompt_tokens
    reasons = [("cached", found.cached_tokens), *found.missed.items()]
    rows = tuple((name, f"{n:,}", f"{n / total:.1%}") for name, n in reasons if n)
    turns = "" if found.num_turns is None else f"{found.num_turns:,} turns, "
    title = f"{turns}{total:,} prompt tokens"
    return ReportTable(
        title, (Column("tokens"), Column("count"), Column("share")), (RowGroup("", rows),)
    )


def _causes(found: Explanation) -> ReportTable:
    rows = tuple(
        (
            f"{number}. {cause.reason}",
            f"{cause.tokens:,}",
            f"{cause.num_turns:,}" if cause.num_turns else UNKNOWN,
            f"{cause.lost_s:,.1f} s",
        )
        for number, cause in enumerate(found.causes, 1)
    )
    columns = (Column("cause"), Column("recomputed"), Column("turns"), Column("lost"))
    return ReportTable("What could have been cached", columns, (RowGroup("", rows),))


def _waits(found: Explanation) -> ReportTable:
    rows = tuple(
        (one.reason, f"{one.num_turns:,}", f"{one.waited_s:,.1f} s") for one in found.waits
    )
    columns = (Column("waited for"), Column("turns"), Column("waits"))
    return ReportTable("What turns waited for before they started", columns, (RowGroup("", rows),))


def _session_lines(session: SessionMisses, num_turns: int) -> list[Text]:
    name = "" if session.session_id is None else f" ({session.session_id})"
    heading = (
        f"session {session.session}{name}: {session.hit_ratio or 0.0:.1%} cached in"
        f" {session.num_turns:,} turns, {session.lost_s:,.1f} s lost"
    )
    worst = sorted(session.turns, key=lambda turn: -turn.lost_s)[:num_turns]
    lines = [f"  turn {turn.turn}, {turn.lost_s:,.2f} s: {turn.why}" for turn in worst]
    return [Text(heading, style="bold"), *map(Text, lines)]
