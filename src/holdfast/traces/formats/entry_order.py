"""Orders Claude Code's entries so that parents precede children."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from holdfast.traces.formats.claude_code_entries import Entry

__all__ = ["parents_before"]


def parents_before(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield entries in their order, but each after its parent if that exists; pure.

    Entries of a circle come last.
    """
    known = {entry.uuid for entry in entries}
    yielded: set[str] = set()
    postponed: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.parent_uuid in known and entry.parent_uuid not in yielded:
            postponed.setdefault(entry.parent_uuid, []).append(entry)
            continue
        waiting = [entry]
        while waiting:
            one = waiting.pop()
            yielded.add(one.uuid)
            yield one
            waiting += reversed(postponed.pop(one.uuid, []))
    for group in postponed.values():
        yield from group
