"""The order of Claude Code's entries: each behind the one that it hangs from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from holdfast.traces.formats.claude_code_entries import Entry

__all__ = ["parents_before"]


def parents_before(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield entries in their order, but none before one that it hangs from and that is there.

    Pure. An entry that hangs from itself, by way of others or not, comes last.
    """
    there = {entry.uuid for entry in entries}
    taken: set[str] = set()
    held: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.parent_uuid in there and entry.parent_uuid not in taken:
            held.setdefault(entry.parent_uuid, []).append(entry)
            continue
        waiting = [entry]
        while waiting:
            one = waiting.pop()
            taken.add(one.uuid)
            yield one
            waiting += reversed(held.pop(one.uuid, []))
    for group in held.values():
        yield from group
