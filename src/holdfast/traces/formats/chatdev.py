"""Reader of ChatDev's role hand-offs: one model call a line, a session a project.

Known: which phase and which two roles a call belongs to, its lengths, and when it was sent and
answered (to the second; some projects lack the sending). In an exchange of two calls only the
second line names a role, that of the message logged after it. The lengths tell who speaks: the
second prompt is the first one and its answer with the other role's system message in front, so
the first call is the pair's first role's and the second the other's.

Assumed: ChatDev puts a role's system message in front of all its prompts. How long it is is not
recorded; 144 tokens is about what the shortest of its published role texts comes to with a task
of one sentence. The prompts of one role in one project share that much and nothing else, which
is less than an engine could reuse: ChatDev repeats the code under review as well.

Role hand-offs are made by the program, so what an answer asked for is "unknown", and only
`Turn.agent` tells more.
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
    """Read one file; taking its sessions adds their chains to `interner`.

    Args:
        file: The file.
        interner: Shared by the files of one reading.
        scope: This file's own scope in it (> 0).
        rng: Shuffles the projects; None keeps their order.

    Raises:
        TraceError: A line is not such a call, a project's calls are not in order, or there is
            none.
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
    """The role that each call speaks for; in an exchange the pair's first, then the other."""
    opened: tuple[str | None, tuple[str, str]] | None = None
    for call in calls:
        is_second = opened == (call.phase, call.pair)
        yield call.pair[is_second]
        opened = (call.phase, call.pair) if call.role is None and not is_second else None


def _gaps_s(calls: list[_Call]) -> Iterator[float]:
    """The gap before each call; where no sending is recorded none is known, and most are 0."""
    yield 0.0
    for before, call in pairwise(calls):
        if call.gap is not None:
            yield call.gap
        elif call.t_send is not None and before.t_recv is not None:
            yield max(0.0, call.t_send - before.t_recv)
        else:
            yield 0.0
