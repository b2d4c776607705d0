"""Chunk owners: worked cases, and against plain sets of claims."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.cache.chunk_owners import ChunkOwners

KEYS = st.text(alphabet="abc", max_size=5).map(
    lambda word: [word[: i + 1] for i in range(len(word))]
)
OWNERS = st.sampled_from("xyz")


def stored(owners: ChunkOwners[str, str], *keys: str) -> ChunkOwners[str, str]:
    for key in keys:
        owners.store(key)
    return owners


def anything(_: str) -> bool:
    return True


def test_unclaimed_chunks_evicted_first() -> None:
    owners = stored(ChunkOwners(), "a", "ab", "z")
    owners.claim("x", ["a", "ab"])
    assert owners.victims(1, ["x"], anything) == ["z"]


def test_lowest_owner_releases_its_deepest_chunk_first() -> None:
    owners = stored(ChunkOwners(), "a", "ab", "abc", "b", "bc")
    owners.claim("x", ["a", "ab", "abc"])
    owners.claim("y", ["b", "bc"])
    assert owners.victims(4, ["y", "x"], anything) == ["bc", "b", "abc", "ab"]


def test_shared_chunk_stays_while_one_owner_keeps_it() -> None:
    owners = stored(ChunkOwners(), "a", "ab", "ac")
    owners.claim("x", ["a", "ab"])
    owners.claim("y", ["a", "ac"])
    assert owners.victims(2, ["x"], anything) is None
    assert owners.victims(1, ["x"], anything) == ["ab"]
    assert owners.victims(2, ["x", "y"], anything) == ["ac", "a"]


def test_chunks_that_a_new_path_leaves_are_unclaimed() -> None:
    owners = stored(ChunkOwners(), "a", "ab", "abc")
    owners.claim("x", ["a", "ab", "abc"])
    owners.claim("x", ["a", "ax"])
    assert owners.victims(2, [], anything) == ["ab", "abc"]
    assert owners.victims(1, [], anything) is None


def test_chunk_that_must_stay_keeps_those_before_it() -> None:
    owners = stored(ChunkOwners(), "a", "ab", "abc")
    owners.claim("x", ["a", "ab", "abc"])
    assert owners.victims(1, ["x"], lambda key: key != "abc") is None
    assert owners.victims(3, ["x"], anything) == ["abc", "ab", "a"]


class OwnersAgainstSets(RuleBasedStateMachine):
    """Chunk owners against a list of claimed keys for each owner."""

    def __init__(self) -> None:
        super().__init__()
        self.owners: ChunkOwners[str, str] = ChunkOwners()
        self.stored: set[str] = set()
        self.claimed: dict[str, list[str]] = {}

    @rule(owner=OWNERS, path=KEYS)
    def claim(self, owner: str, path: list[str]) -> None:
        self.owners.claim(owner, path)
        self.claimed[owner] = path

    @rule(owner=OWNERS)
    def drop(self, owner: str) -> None:
        self.owners.drop(owner)
        self.claimed.pop(owner, None)

    @rule(path=KEYS)
    def store(self, path: list[str]) -> None:
        for key in path:
            if key not in self.stored:
                self.owners.store(key)
                self.stored.add(key)

    @rule(
        count=st.integers(0, 6),
        order=st.permutations("xyz"),
        pinned=st.sets(st.sampled_from("abc")),
    )
    def evict(self, count: int, order: list[str], pinned: set[str]) -> None:
        expected = self.expected(count, order, pinned)
        found = self.owners.victims(count, order, lambda key: key[-1] not in pinned)
        if expected is None:
            assert found is None
            return
        assert found is not None
        assert set(found) == set(expected)
        assert len(found) == count
        self.stored -= set(found)
        self.claimed = self.left

    def expected(self, count: int, order: list[str], pinned: set[str]) -> list[str] | None:
        claimed = {key for path in self.claimed.values() for key in path}
        unclaimed = [k for k in self.stored if k not in claimed and k[-1] not in pinned]
        if len(unclaimed) >= count:
            # Any of them may be evicted; take those that were unclaimed longest.
            self.left = self.claimed
            found = self.oldest_first(unclaimed)[:count]
            return found
        found = list(unclaimed)
        left = {owner: list(path) for owner, path in self.claimed.items()}
        for owner in order:
            path = left.get(owner, [])
            while path and len(found) < count:
                key = path[-1]
                others = any(key in c for o, c in left.items() if o != owner)
                if key in self.stored and not others:
                    if key[-1] in pinned:
                        break
                    found.append(key)
                path.pop()
        self.left = left
        return found if len(found) == count else None

    def oldest_first(self, unclaimed: list[str]) -> list[str]:
        return [key for key in self.owners._unclaimed if key in unclaimed]

    @invariant()
    def counts_agree(self) -> None:
        self.owners.check_integrity()
        assert len(self.owners) == len(self.stored)


TestOwnersAgainstSets = OwnersAgainstSets.TestCase
