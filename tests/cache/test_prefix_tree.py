"""The prefix tree against a plain set of prefixes, and worked cases."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.cache.prefix_tree import Node, PrefixTree


@dataclass(eq=False)
class PlainBlock:
    block_id: int
    prev_free_block: object | None = None
    next_free_block: object | None = None


PlainNode = Node[PlainBlock]

TOKENS = st.lists(st.sampled_from(b"abc"), max_size=7).map(bytes)


def hashes_of(tokens: str | bytes) -> list[bytes]:
    """A hash for each block, one token a block: the prefix itself."""
    tokens = tokens.encode() if isinstance(tokens, str) else tokens
    return [tokens[: i + 1] for i in range(len(tokens))]


def text_of(node: PlainNode) -> str:
    """The node's own tokens."""
    return "".join(chr(h[-1]) for h in node.hashes)


def shape(node: PlainNode) -> dict[str, object]:
    """The tree below a node as nested dicts of the nodes' tokens."""
    return {text_of(child): shape(child) for child in node.children.values()}


class TreeAgainstSet(RuleBasedStateMachine):
    """Owners have paths, nodes may have free blocks; nodes with neither are pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.tree: PrefixTree[PlainBlock] = PrefixTree()
        self.owned: dict[int, tuple[PlainNode, bytes]] = {}
        self.num_owners = 0

    def known(self) -> set[bytes]:
        paths = [tokens for _, tokens in self.owned.values()]
        for node in self.tree.root.subtree():
            if node.free_blocks.num_blocks:
                paths.append(node.hashes[-1])
        return {prefix for tokens in paths for prefix in hashes_of(tokens)}

    def nodes(self) -> list[PlainNode]:
        return [s for s in self.tree.root.subtree() if s.parent is not None]

    @rule(tokens=TOKENS)
    def insert(self, tokens: bytes) -> None:
        node, depth = self.tree.match(hashes_of(tokens))
        is_inside_a_node = depth < node.end
        tail, upper = self.tree.insert(hashes_of(tokens))
        assert tail.end == len(tokens)
        assert (upper is not None) == is_inside_a_node
        if upper is not None:
            assert upper.end == depth
            assert not upper.free_blocks.num_blocks
        if tokens:
            self.num_owners += 1
            tail.tails.add(self.num_owners)
            self.owned[self.num_owners] = (tail, tokens)

    @precondition(lambda self: self.owned)
    @rule(data=st.data())
    def drop_owner(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(self.owned)))
        node, _ = self.owned.pop(owner)
        node.tails.discard(owner)
        self.tree.prune(node)

    @precondition(lambda self: self.nodes())
    @rule(data=st.data())
    def free_or_take_a_block(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(self.nodes()))
        assert node.parent is not None
        if node.free_blocks.head is None:
            node.free_blocks.push_back(PlainBlock(0))
            node.parent.num_open_children += 1
        else:
            node.free_blocks.remove(node.free_blocks.head)
            node.parent.num_open_children -= 1
            self.tree.prune(node)

    @precondition(lambda self: self.nodes())
    @rule(data=st.data())
    def absorb(self, data: st.DataObject) -> None:
        candidates = [s for s in self.nodes() if not s.free_blocks.num_blocks and not s.is_endpoint]
        candidates += [s for s, _ in self.owned.values() if not s.free_blocks.num_blocks]
        if not candidates:
            return
        node = data.draw(st.sampled_from(candidates))
        end = node.end
        joined = self.tree.absorb(node)
        if joined is not None:
            assert joined.end == end
            assert not node.is_attached
            for owner in joined.tails:
                self.owned[owner] = (joined, self.owned[owner][1])

    @precondition(lambda self: self.nodes())
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        leaves = [s for s in self.nodes() if not s.children]
        node = data.draw(st.sampled_from(leaves))
        for owner in node.tails:
            del self.owned[owner]
        node.tails.clear()
        parent = node.parent
        assert parent is not None
        self.tree.detach(node)
        self.tree.prune(parent)

    @rule()
    def clear(self) -> None:
        handed_out = self.nodes()
        self.tree.clear()
        assert not any(node.is_attached for node in handed_out)
        self.owned.clear()

    @rule(tokens=TOKENS)
    def match_is_the_longest_known_prefix(self, tokens: bytes) -> None:
        known = self.known()
        expected = max((len(p) for p in hashes_of(tokens) if p in known), default=0)
        node, depth = self.tree.match(hashes_of(tokens))
        assert depth == expected
        assert node.start < depth <= node.end or depth == 0

    @invariant()
    def tree_is_consistent(self) -> None:
        self.tree.check_integrity()
        known = self.known()
        assert len(self.tree) == len(known)
        for prefix in known:
            node = self.tree.locate(prefix)
            assert node is not None
            assert node.start < len(prefix) <= node.end
        assert self.tree.root.is_attached

    @invariant()
    def paths_end_where_nodes_end(self) -> None:
        for owner, (node, tokens) in self.owned.items():
            assert node.is_attached
            assert owner in node.tails
            assert node.end == len(tokens)
            assert [h for n in reversed([*node.path()]) for h in n.hashes] == hashes_of(tokens)


TestTreeAgainstSet = TreeAgainstSet.TestCase
TestTreeAgainstSet.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def insert(tree: PrefixTree[PlainBlock], text: str, owner: str | None = None) -> PlainNode:
    tail, _ = tree.insert(hashes_of(text))
    if owner is not None:
        tail.tails.add(owner)
    return tail


def test_fork_splits_node_and_keeps_deeper_half_as_object() -> None:
    tree: PrefixTree[PlainBlock] = PrefixTree()
    first = insert(tree, "abcd", "first")

    second = insert(tree, "abxy", "second")

    assert shape(tree.root) == {"ab": {"cd": {}, "xy": {}}}
    assert first is tree.root.children[b"a"].children[b"abc"]
    assert first.tails == {"first"}
    assert second.start == 2
    assert [text_of(node) for node in second.path()] == ["xy", "ab"]


def test_split_returns_shallow_half_with_reservations() -> None:
    tree: PrefixTree[PlainBlock] = PrefixTree()
    first = insert(tree, "abcd", "first")
    first.num_reservations = 2

    tail, upper = tree.insert(hashes_of("abxy"))

    assert upper is not None
    assert text_of(upper) == "ab"
    assert upper.num_reservations == first.num_reservations == 2
    assert tail.num_reservations == 0
    assert not upper.is_endpoint


def test_prompt_ending_inside_a_node_ends_at_shallow_half() -> None:
    tree: PrefixTree[PlainBlock] = PrefixTree()
    insert(tree, "abcd", "first")

    tail, upper = tree.insert(hashes_of("ab"))

    assert tail is upper
    assert shape(tree.root) == {"ab": {"cd": {}}}


def test_path_inserted_twice_changes_nothing() -> None:
    tree: PrefixTree[PlainBlock] = PrefixTree()
    tail = insert(tree, "abc", "first")

    again, upper = tree.insert(hashes_of("abc"))

    assert again is tail
    assert upper is None
    assert len(tree) == 3


def test_extension_of_unused_path_grows_its_node() -> None:
    tree: PrefixTree[PlainBlock] = PrefixTree()
    tail = insert(tree, "ab")

    longer = insert(tree, "abcd")

    assert longer is tail
    assert shape(tree.root) == {"abcd": {}}
    assert tree.locate(b"abcd") is tail


def test_extension_of_used_path_is_a_new_node() -> None:
    tree: PrefixTree[PlainBlock] = PrefixTree()
    insert(tree, "ab", "first")

    insert(tree, "abcd", "second")

    assert shape(tree.root) == {"ab": {"cd": {}}}


def test_answer_is_a_new_node_after_a_prompt_end() -> None:
    tree: PrefixTree[PlainBlock] = PrefixTree()
    insert(tree, "ab").prompts.add("first")

    insert(tree, "abcd", "first")

    assert shape(tree.root) == {"ab": {"cd": {}}}


def test_compaction_leaves_only_the_shared_prefix() -> None:
    tree: PrefixTree[PlainBlock] = PrefixTree()
    old = insert(tree, "sysold", "first")

    old.tails.discard("first")
    insert(tree, "sysnew", "first")
    tree.prune(old)

    assert shape(tree.root) == {"sys": {"new": {}}}
    assert tree.match(hashes_of("sysold")).depth == 3
    tree.check_integrity()


def test_absorb_joins_an_only_child_and_moves_its_users() -> None:
    tree: PrefixTree[PlainBlock] = PrefixTree()
    parent = insert(tree, "ab", "first")
    child = insert(tree, "abcd", "second")
    parent.tails.clear()

    assert tree.absorb(child) is parent

    assert shape(tree.root) == {"abcd": {}}
    assert parent.tails == {"second"}
    assert not child.is_attached
    assert tree.locate(b"abcd") is parent


@pytest.mark.parametrize("reason", ["endpoint", "fork", "children", "reservations", "first_node"])
def test_absorb_refuses_when_users_differ(reason: str) -> None:
    tree: PrefixTree[PlainBlock] = PrefixTree()
    parent = insert(tree, "ab", "first")
    child = insert(tree, "abcd", "second")
    if reason != "endpoint":
        parent.tails.clear()
    if reason == "fork":
        insert(tree, "abx", "third")
    if reason == "children":
        insert(tree, "abcdef", "third")
    if reason == "reservations":
        parent.num_reservations = 1
    before = shape(tree.root)

    assert tree.absorb(parent if reason == "first_node" else child) is None

    assert shape(tree.root) == before
    tree.check_integrity()


def test_prune_stops_at_a_node_with_free_blocks() -> None:
    tree: PrefixTree[PlainBlock] = PrefixTree()
    upper = insert(tree, "ab", "first")
    deeper = insert(tree, "abcd", "second")
    upper.tails.clear()
    deeper.tails.clear()
    upper.free_blocks.push_back(PlainBlock(0))
    tree.root.num_open_children += 1

    tree.prune(deeper)

    assert shape(tree.root) == {"ab": {}}
    assert not deeper.is_attached
    assert upper.is_attached


def test_pruning_a_detached_node_changes_nothing() -> None:
    tree: PrefixTree[PlainBlock] = PrefixTree()
    old = insert(tree, "ab")
    tree.detach(old)
    new = insert(tree, "ab", "first")

    tree.prune(old)

    assert tree.locate(b"ab") is new
    tree.check_integrity()


def test_match_finds_every_depth_of_a_long_node() -> None:
    tree: PrefixTree[PlainBlock] = PrefixTree()
    prompt = bytes(range(33))
    tree.insert(hashes_of(prompt))

    for depth in range(33):
        assert tree.match(hashes_of(prompt[:depth] + b"xyz")).depth == depth
        assert tree.match(hashes_of(prompt[:depth])).depth == depth


def test_empty_prompt_is_the_root() -> None:
    tree: PrefixTree[PlainBlock] = PrefixTree()
    insert(tree, "ab", "first")

    assert tree.insert([]) == (tree.root, None)
    assert tree.match([]) == (tree.root, 0)
