"""One frame of `holdfast top`: engines, their caches, and who waits for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from holdfast.core.engine_view import EngineView, listing_order, total_view
from holdfast.core.miss import AVOIDABLE_REASONS
from holdfast.core.seen_state import SeenSession
from holdfast.report.cells import UNKNOWN

__all__ = ["engine_frame"]

_STATES: Final = {"running": "run", "waiting": "wait", "at_tool": "tool", "human_away": "away"}
_HEADINGS: Final = ("queue", "hits", "ceiling", "evict/s", "used", "reserved")
_SHORT_HEADINGS: Final = ("queue", "hits", "ceil", "ev/s", "used", "resv")
_START_REASONS: Final = {
    "admitted": "starts in the next step",
    "slots": "the batch is full (--max-num-seqs)",
    "blocks": "needs {needed:,} KV blocks, {free:,} are free",
    "due": "after {first}, which is due",
    "priority": "after {first}, which is more urgent",
    "own_order": "after {first}, in its client's order",
    "tenant": "after {first}: its tenant was served less",
    "session": "after {first}: it was served less",
    "order": "after {first}",
    "prefetch": "its blocks are being loaded",
    "engine": "in the engine's own order",
}
_HIT_CHARS: Final = 6
_WIDE: Final = 110
_ID_CHARS: Final = 20
_ENGINE_CHARS: Final = 16
_ADDRESS_CHARS: Final = 28
_FAR_BELOW: Final = 0.1
_BAR: Final = 6


def engine_frame(views: Sequence[EngineView], width: int, num_sessions: int | None) -> Group:
    """The frame. Pure.

    Args:
        views: The engines, in order.
        width: Columns of the terminal.
        num_sessions: Most sessions to list; None for all.
    """
    parts: list[RenderableType] = [_engines(views, width)]
    parts += [line for view in views for line in _notes(view, len(views) > 1)]
    listed = [(view, session) for view in views for session in view.listed]
    listed.sort(key=lambda one: listing_order(one[1]))
    if listed:
        parts += [Text(), _sessions(listed[:num_sessions], width, len(views) > 1)]
        shown = len(listed[:num_sessions])
        if shown < len(listed) or any(view.has_more for view in views):
            parts.append(Text(f"{shown} of {len(listed)} sessions or more", style="dim"))
    return Group(*parts)


def _engines(views: Sequence[EngineView], width: int) -> Table:
    table = _empty_table(width)
    table.add_column("engine", no_wrap=True, overflow="ellipsis", max_width=_ADDRESS_CHARS)
    for heading in (*_STATES.values(), *(_HEADINGS if width >= _WIDE else _SHORT_HEADINGS)):
        least = _HIT_CHARS if heading == "hits" else len(heading)
        table.add_column(heading, justify="right", no_wrap=True, min_width=least)
    if width >= _WIDE:
        table.add_column("lost to", no_wrap=True)
        table.add_column("policy", no_wrap=True)
    for view in (*views, *([total_view(views)] if len(views) > 1 else ())):
        table.add_row(*_engine_row(view, width))
    return table


def _empty_table(width: int) -> Table:
    padding = 1 if width >= _WIDE else 0
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, padding, 0, 0))


def _engine_row(view: EngineView, width: int) -> list[Text]:
    address = _end_of(view.url.removeprefix("http://"), _ADDRESS_CHARS)
    name = Text(address, style="bold" if view.url == "all" else "")
    if view.error:
        return [name, Text("down", style="bold red")]
    states = [Text(str(view.sessions.get(state, 0))) for state in _STATES]
    cells = [
        *(name, *states, _queued(view), _hits(view), _share(view.possible_hit_ratio)),
        _number(view.evicted_blocks_per_s),
        _used(view.used_blocks, view.capacity_blocks),
        _used(view.reserved_blocks, view.capacity_blocks),
    ]
    if width >= _WIDE:
        cells += [_largest(view.missed), Text(view.policy)]
    return cells


def _queued(view: EngineView) -> Text:
    waiting = UNKNOWN if view.waiting is None else str(view.waiting)
    return Text(waiting, style="yellow" if view.waiting else "")


def _hits(view: EngineView) -> Text:
    text = _share(view.hit_ratio)
    if view.hit_ratio is not None and view.possible_hit_ratio is not None:
        lost = view.possible_hit_ratio - view.hit_ratio
        text.stylize("bold red" if lost > _FAR_BELOW else "green")
    if not view.is_recent and view.hit_ratio is not None:
        text.append("*")
    return text


def _share(value: float | None) -> Text:
    return Text(UNKNOWN if value is None else f"{value:.1%}" if value < 1 else "100%")


def _number(value: float | None) -> Text:
    return Text(UNKNOWN if value is None else f"{value:,.1f}" if value < 10 else f"{value:,.0f}")


def _used(part: int | None, whole: int | None) -> Text:
    return Text(UNKNOWN if part is None or not whole else f"{part / whole:.0%}")


def _largest(missed: Mapping[str, float]) -> Text:
    """The avoidable reason of most missing tokens, and its share of all of them."""
    avoidable = {key: missed[key] for key in AVOIDABLE_REASONS & missed.keys() if missed[key]}
    if not avoidable:
        return Text(UNKNOWN)
    reason = max(avoidable, key=lambda key: avoidable[key])
    return Text(f"{reason} {avoidable[reason] / sum(missed.values()):.0%}")


def _notes(view: EngineView, names_engine: bool) -> list[Text]:
    """Lines below the table on one engine."""
    start = f"{view.url.removeprefix('http://')}: " if names_engine else ""
    if view.error:
        return [Text(f"{start}cannot be read: {view.error}", style="red")]
    found = []
    if view.capacity_blocks:
        found.append(
            Text(f"{start}{view.capacity_blocks:,} KV blocks; {_tiers(view)}", style="dim")
        )
    if view.alarms:
        alarms = ", ".join(f"{kind} {number}" for kind, number in sorted(view.alarms.items()))
        found.append(Text(f"{start}alarms since the start: {alarms}; the log has more", "red"))
    if view.hit_ratio is not None and not view.is_recent:
        found.append(Text(f"{start}* no turn started just now: hits of the last turns", "dim"))
    if view.routes:
        found.append(Text(f"{start}sessions are not listed: {view.routes}", "yellow"))
    return found


def _tiers(view: EngineView) -> str:
    parts = [f"{tier} {rate:,.0f} tokens/s" for tier, rate in view.loaded_tokens_per_s.items()]
    text = "loads: " + ", ".join(parts) if parts else "no loads from tiers"
    outcomes = [f"{name} {rate:.1f}/s" for name, rate in view.prefetches_per_s.items() if rate]
    if outcomes:
        text += "; prefetches: " + ", ".join(outcomes)
    if view.offload_is_paying is False:
        text += "; KV offload is disabled, copies cost more than they save"
    return text


def _sessions(
    listed: Sequence[tuple[EngineView, SeenSession]], width: int, names_engine: bool
) -> Table:
    table = _empty_table(width)
    longest = max(len(_name(session)) for _, session in listed)
    table.add_column("session", no_wrap=True, min_width=longest, max_width=_ID_CHARS)
    if names_engine and width >= _WIDE:
        table.add_column("engine", no_wrap=True, min_width=_ENGINE_CHARS)
    table.add_column("state", no_wrap=True, min_width=5)
    if width >= _WIDE:
        table.add_column("turns", justify="right", no_wrap=True, min_width=5)
    table.add_column("blocks", justify="right", no_wrap=True, min_width=6)
    table.add_column("resident", no_wrap=True, min_width=8)
    table.add_column("waits for, and why", no_wrap=True, overflow="ellipsis")
    if width >= _WIDE:
        table.add_column("last prompt", no_wrap=True, overflow="ellipsis")
    for view, session in listed:
        table.add_row(*_session_row(view, session, width, names_engine))
    return table


def _session_row(
    view: EngineView, session: SeenSession, width: int, names_engine: bool
) -> list[Text]:
    cells = [Text(_name(session))]
    if names_engine and width >= _WIDE:
        cells.append(Text(_end_of(view.url.removeprefix("http://"), _ENGINE_CHARS)))
    style = "yellow" if session.state == "waiting" else ""
    cells += [
        Text(_STATES.get(session.state, session.state), style=style),
        *((Text(str(session.num_turns)),) if width >= _WIDE else ()),
        Text(f"{session.context_blocks:,}"),
        _resident(session),
        Text(_why(view, session)),
    ]
    if width >= _WIDE:
        cells.append(_last_prompt(session))
    return cells


def _resident(session: SeenSession) -> Text:
    share = session.resident_blocks / max(session.context_blocks, 1)
    filled = min(round(share * _BAR), _BAR)
    bar = Text("\u2588" * filled + "\u2591" * (_BAR - filled), style="green")
    return bar.append(" R" if session.has_reservation else "  ", style="bold")


def _name(session: SeenSession) -> str:
    return _end_of(session.session_id or session.agent_id or f"#{session.number}", _ID_CHARS)


def _end_of(name: str, num_chars: int) -> str:
    """The end of a name that is too long: ids and ports differ there."""
    return name if len(name) <= num_chars else f"\u2026{name[1 - num_chars :]}"


def _why(view: EngineView, session: SeenSession) -> str:
    if session.state == "waiting":
        return _start(view, session)
    wait = session.waits_for
    if wait is None:
        return ""
    what = wait.tool or {"human": "its user"}.get(wait.kind, wait.kind)
    if wait.result_known:
        return f"{what}: done, the next turn is due"
    due = f"expected in {_time(wait.expected_s)}" if wait.expected_s else "overdue"
    return f"{what}: idle {_time(wait.idle_s)}, {due}"


def _start(view: EngineView, session: SeenSession) -> str:
    """What a waiting turn waits for."""
    start = session.starts_after
    if start is None or start.reason not in _START_REASONS:
        missing = max(session.context_blocks - session.resident_blocks, 0)
        return f"its start: {missing:,} blocks are missing"
    names = [_name(one) for one in view.listed if one.number == start.first_session]
    first = names[0] if len(names) == 1 else f"#{start.first_session}"
    return f"{_time(start.waited_s)}: " + _START_REASONS[start.reason].format(
        needed=start.needed_blocks, free=start.free_blocks, first=first
    )


def _last_prompt(session: SeenSession) -> Text:
    miss = session.last_miss
    if miss is None or not miss.prompt_tokens:
        return Text(UNKNOWN)
    text = Text(f"{miss.cached_tokens / miss.prompt_tokens:.0%} of {miss.prompt_tokens:,}")
    reasons = {key: miss.missed[key] for key in AVOIDABLE_REASONS & miss.missed.keys()}
    reason = max(reasons, key=lambda key: reasons[key], default=None)
    return text if reason is None or not reasons[reason] else text.append(f", {reason}", "red")


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"
