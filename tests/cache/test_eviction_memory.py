"""The memory of evicted blocks."""

from __future__ import annotations

from holdfast.cache.eviction_memory import EvictionMemory


def test_the_oldest_note_is_forgotten_first() -> None:
    memory: EvictionMemory[int] = EvictionMemory(2)
    for number, block_hash in enumerate((b"a", b"b", b"a", b"c")):
        memory.note(block_hash, number)
    assert (memory.get(b"a"), memory.get(b"b"), memory.get(b"c")) == (2, None, 3)
    assert len(memory) == 2


def test_depth_is_that_of_the_deepest_note() -> None:
    memory: EvictionMemory[int] = EvictionMemory(8)
    memory.note(b"b", 0)
    assert memory.depth([b"a", b"b", b"c"], 0) == 2
    assert memory.depth([b"a", b"b", b"c"], 2) == 2
    assert memory.depth([b"x"], 0) == 0
