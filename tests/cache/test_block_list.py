"""A block list against a plain list of blocks."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.cache.block_list import BlockList


@dataclass(eq=False)
class PlainBlock:
    block_id: int
    prev_free_block: object | None = None
    next_free_block: object | None = None


class BlockListAgainstList(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.block_list: BlockList[PlainBlock] = BlockList()
        self.model: list[PlainBlock] = []
        self.outside = [PlainBlock(i) for i in range(6)]

    @precondition(lambda self: self.outside)
    @rule(data=st.data())
    def push_back(self, data: st.DataObject) -> None:
        block = self.outside.pop(data.draw(st.integers(0, len(self.outside) - 1)))
        self.block_list.push_back(block)
        self.model.append(block)

    @rule(data=st.data())
    def extend_back(self, data: st.DataObject) -> None:
        num_blocks = data.draw(st.integers(0, len(self.outside)))
        blocks = [self.outside.pop() for _ in range(num_blocks)]
        self.block_list.extend_back(blocks)
        self.model += blocks

    @rule(data=st.data())
    def pop_front(self, data: st.DataObject) -> None:
        num_blocks = data.draw(st.integers(0, len(self.model)))
        taken = self.block_list.pop_front(num_blocks)
        assert taken == self.model[:num_blocks]
        assert all(b.prev_free_block is None and b.next_free_block is None for b in taken)
        del self.model[:num_blocks]
        self.outside += taken

    @precondition(lambda self: self.outside)
    @rule(data=st.data())
    def push_front(self, data: st.DataObject) -> None:
        block = self.outside.pop(data.draw(st.integers(0, len(self.outside) - 1)))
        self.block_list.push_front(block)
        self.model.insert(0, block)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        block = self.model.pop(data.draw(st.integers(0, len(self.model) - 1)))
        self.block_list.remove(block)
        self.outside.append(block)

    @invariant()
    def blocks_equal_the_list(self) -> None:
        assert list(self.block_list) == self.model
        assert self.block_list.num_blocks == len(self.model)
        assert self.block_list.head is (self.model[0] if self.model else None)
        assert self.block_list.tail is (self.model[-1] if self.model else None)

    @invariant()
    def backward_links_agree(self) -> None:
        backward: list[object] = []
        block: object | None = self.block_list.tail
        while isinstance(block, PlainBlock):
            backward.append(block)
            block = block.prev_free_block
        assert backward == self.model[::-1]

    @invariant()
    def blocks_outside_have_no_links(self) -> None:
        assert all(b.prev_free_block is b.next_free_block is None for b in self.outside)


TestBlockListAgainstList = BlockListAgainstList.TestCase
TestBlockListAgainstList.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_block_just_yielded_may_be_removed() -> None:
    block_list: BlockList[PlainBlock] = BlockList()
    blocks = [PlainBlock(i) for i in range(4)]
    for block in blocks:
        block_list.push_back(block)

    seen = []
    for block in block_list:
        seen.append(block)
        block_list.remove(block)

    assert seen == blocks
    assert block_list.num_blocks == 0
