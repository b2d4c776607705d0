"""Reader of ChatDev's role hand-offs: a model call a line, a session a project.

Known: a call's phase, its pair of roles, its lengths, and when it was sent and answered (to the
second; some projects lack the time of sending). In an exchange of two calls only the second line
names a role, that of the message logged after it. Lengths identify the speakers: the second prompt
is the other role's system message, the first prompt and its answer, so the pair's first role makes
the first call and the other role the second.

Assumed: a role's system message precedes all its prompts and has 144 tokens, about the length of
the shortest published role text with a task of one sentence; the real length is not recorded. The
prompts of one role in one project share that much and nothing else, which is less than an engine
could reuse: ChatDev also repeats the code under review.

The program makes the hand-offs, so `Turn.ended_by` is "unknown"; `Turn.agent` has the role.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count, islice, pairwise

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.formats.quantities import Count, PromptTokens, Seconds, Tokens
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.row_checks import wrong_turn
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Session, Turn

__all__ = ["LAYOUTS", "read_chatdev"]

LAYOUTS = (frozenset({"s", "i", "phase", "pair"}),)
"""A first line with all of these fields is of this format."""

_BLOCK_TOKENS = 16
_SYSTEM_TOKENS = 144
_HINT = "expected one call a line: {s, i, phase, pair: [role, role], t_send, t_recv, in, out}"


class _Call(msgspec.Struct):
    project: str = msgspec.field(name="s")
    index: Count = msgspec.field(name="i")
    phase: str | None
    pair: tuple[str, str]
    prompt_tokens: PromptTokens = msgspec.field(name="in")
    output_tokens: Tokens = msgspec.field(name="out")
    t_send: Seconds | None = None
    t_recv: Seconds | None = None
    role: str | None = None
    gap: Seconds | None = None


def read_chatdev(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: The file.
        interner: Shared by all files that are read together.
        scope: This file's scope of hashes (> 0).
        rng: Shuffles the projects; None keeps their order.

    Raises:
        TraceError: A line is not such a call, a project's calls are out of order, or there is no
            call.
    """
    projects: dict[str, list[_Call]] = {}
    for line, call in file.decode(_Call, hint=_HINT):
        calls = projects.setdefault(call.project, [])
        name = f"call {call.index} of project {call.project!r}"
        problem = wrong_turn(file, line, "i", name, call.index, len(calls))
        if problem is None:
            calls.append(call)
        else:
            file.refuse(problem)
    projects = {project: calls for project, calls in projects.items() if calls}
    if not projects:
        raise TraceError("holds no call", source=file.source, hint=_HINT)
    num_estimated_gaps = sum(call.gap is None for calls in projects.values() for call in calls[1:])
    order = list(projects.items())
    if rng is not None:
        rng.shuffle(order)
    sessions = _sessions(file.source, order, interner, scope)
    return Reading(len(projects), num_estimated_gaps, sessions)


def _sessions(
    source: str, projects: list[tuple[str, list[_Call]]], interner: PrefixInterner, scope: int
) -> Iterator[Session]:
    hashes = count()
    for project, calls in projects:
        trail = interner.trail(scope)
        system_messages: dict[str, list[int]] = {}
        turns: list[Turn] = []
        for call, role, gap_s in zip(calls, _speakers(calls), _gaps_s(calls), strict=True):
            if role not in system_messages:
                system_messages[role] = list(islice(hashes, _SYSTEM_TOKENS // _BLOCK_TOKENS))
            num_blocks = call.prompt_tokens // _BLOCK_TOKENS
            prompt = system_messages[role][:num_blocks]
            prompt.extend(islice(hashes, num_blocks - len(prompt)))
            turns.append(
                Turn(
                    gap_s=gap_s,
                    prompt_tokens=call.prompt_tokens,
                    output_tokens=call.output_tokens,
                    block_ids=trail.extend(prompt),
                    agent=role,
                )
            )
        yield Session(project, _BLOCK_TOKENS, tuple(turns), source)


def _speakers(calls: list[_Call]) -> Iterator[str]:
    """Yield the role of each call: in an exchange the pair's first, then its second."""
    opened: tuple[str | None, tuple[str, str]] | None = None
    for call in calls:
        is_second = opened == (call.phase, call.pair)
        yield call.pair[is_second]
        opened = (call.phase, call.pair) if call.role is None and not is_second else None


def _gaps_s(calls: list[_Call]) -> Iterator[float]:
    """Yield the gap before each call; 0 if unknown, as most gaps are 0."""
    yield 0.0
    for before, call in pairwise(calls):
        if call.gap is not None:
            yield call.gap
        elif call.t_send is not None and before.t_recv is not None:
            yield max(0.0, call.t_send - before.t_recv)
        else:
            yield 0.0
