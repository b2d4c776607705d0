"""ChunkOwners on stored chunks: worked cases, and against a plain account of who wants what."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.cache.chunk_owners import ChunkOwners

KEYS = st.text(alphabet="abc", max_size=5).map(
    lambda word: [word[: i + 1] for i in range(len(word))]
)
OWNERS = st.sampled_from("xyz")


def stored(claims: ChunkOwners[str, str], *keys: str) -> ChunkOwners[str, str]:
    for key in keys:
        claims.store(key)
    return claims


def anything(_: str) -> bool:
    return True


def test_what_nobody_claims_goes_first() -> None:
    claims = stored(ChunkOwners(), "a", "ab", "z")
    claims.claim("x", ["a", "ab"])
    assert claims.victims(1, ["x"], anything) == ["z"]


def test_the_owner_worth_least_gives_up_its_deepest_chunk_first() -> None:
    claims = stored(ChunkOwners(), "a", "ab", "abc", "b", "bc")
    claims.claim("x", ["a", "ab", "abc"])
    claims.claim("y", ["b", "bc"])
    assert claims.victims(4, ["y", "x"], anything) == ["bc", "b", "abc", "ab"]


def test_a_shared_chunk_stays_while_one_claimant_does() -> None:
    claims = stored(ChunkOwners(), "a", "ab", "ac")
    claims.claim("x", ["a", "ab"])
    claims.claim("y", ["a", "ac"])
    assert claims.victims(2, ["x"], anything) is None
    assert claims.victims(1, ["x"], anything) == ["ab"]
    assert claims.victims(2, ["x", "y"], anything) == ["ac", "a"]


def test_what_a_chain_leaves_behind_is_unclaimed() -> None:
    claims = stored(ChunkOwners(), "a", "ab", "abc")
    claims.claim("x", ["a", "ab", "abc"])
    claims.claim("x", ["a", "ax"])
    assert claims.victims(2, [], anything) == ["ab", "abc"]
    assert claims.victims(1, [], anything) is None


def test_a_chunk_that_may_not_go_keeps_those_before_it() -> None:
    claims = stored(ChunkOwners(), "a", "ab", "abc")
    claims.claim("x", ["a", "ab", "abc"])
    assert claims.victims(1, ["x"], lambda key: key != "abc") is None
    assert claims.victims(3, ["x"], anything) == ["abc", "ab", "a"]


class ClaimsAgainstPlain(RuleBasedStateMachine):
    """Chains as sets of claimants for each key."""

    def __init__(self) -> None:
        super().__init__()
        self.claims: ChunkOwners[str, str] = ChunkOwners()
        self.stored: set[str] = set()
        self.wanted: dict[str, list[str]] = {}

    @rule(owner=OWNERS, chain=KEYS)
    def claim(self, owner: str, chain: list[str]) -> None:
        self.claims.claim(owner, chain)
        self.wanted[owner] = chain

    @rule(owner=OWNERS)
    def drop(self, owner: str) -> None:
        self.claims.drop(owner)
        self.wanted.pop(owner, None)

    @rule(chain=KEYS)
    def store(self, chain: list[str]) -> None:
        for key in chain:
            if key not in self.stored:
                self.claims.store(key)
                self.stored.add(key)

    @rule(
        count=st.integers(0, 6),
        order=st.permutations("xyz"),
        pinned=st.sets(st.sampled_from("abc")),
    )
    def evict(self, count: int, order: list[str], pinned: set[str]) -> None:
        expected = self.expected(count, order, pinned)
        found = self.claims.victims(count, order, lambda key: key[-1] not in pinned)
        if expected is None:
            assert found is None
            return
        assert found is not None
        assert set(found) == set(expected)
        assert len(found) == count
        self.stored -= set(found)
        self.wanted = self.left

    def expected(self, count: int, order: list[str], pinned: set[str]) -> list[str] | None:
        claimed = {key for chain in self.wanted.values() for key in chain}
        loose = [k for k in self.stored if k not in claimed and k[-1] not in pinned]
        if len(loose) >= count:
            # Any of them may go: which is the store's order, not the chains'.
            self.left = self.wanted
            found = self.claims_order(loose)[:count]
            return found
        found = list(loose)
        left = {owner: list(chain) for owner, chain in self.wanted.items()}
        for owner in order:
            chain = left.get(owner, [])
            while chain and len(found) < count:
                key = chain[-1]
                others = any(key in c for o, c in left.items() if o != owner)
                if key in self.stored and not others:
                    if key[-1] in pinned:
                        break
                    found.append(key)
                chain.pop()
        self.left = left
        return found if len(found) == count else None

    def claims_order(self, loose: list[str]) -> list[str]:
        return [key for key in self.claims._unclaimed if key in loose]

    @invariant()
    def books_agree(self) -> None:
        self.claims.check_integrity()
        assert len(self.claims) == len(self.stored)


TestClaimsAgainstPlain = ClaimsAgainstPlain.TestCase
