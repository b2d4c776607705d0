"""What an agent keeps of the cache while its sub-agents run, by hand-worked numbers."""

from __future__ import annotations

import pytest
from tests.policies.host import Cache, hashes_of

from holdfast.core.identity import Identity
from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.tool_calls.syntax import ToolCall
from holdfast.tool_calls.turn_end import TurnEnd

ANSWER = TurnEnd("human", ())
TASKS = TurnEnd("tool", (ToolCall("Task"), ToolCall("Task")))


class FamilyCache(Cache):
    """A cache whose turns name their session and its parent."""

    def begin(self, name: str, prompt: str, parent: str | None = None) -> Turn:
        """Send and start a turn."""
        self.runtime.tick(self.now_s)
        identity = Identity(session_id=name, parent_session_id=parent)
        hashes = hashes_of(prompt)
        turn = self.runtime.turn_arrived(f"{name}/{self.now_s}", hashes, identity)
        self._prompts[turn] = hashes
        turn.resident_blocks = self._num_found(hashes)
        turn.missing_blocks = len(hashes) - turn.resident_blocks
        turn.demand_blocks = turn.footprint_blocks = turn.missing_blocks
        self.start(turn)
        return turn

    def call_two(self) -> Session:
        """Run a turn of an agent that calls two sub-agents, and begin both; ends at 10 s."""
        turn = self.begin("root", "abcdefgh")
        self.at(10.0)
        self.end(turn, TASKS)
        self.sub_agents = [self.begin(name, f"{name}xyz", "root") for name in ("1", "2")]
        return turn.session


@pytest.fixture
def cache() -> FamilyCache:
    return FamilyCache("holdfast", 40)


def test_agent_is_not_idle_while_its_sub_agents_work(cache: FamilyCache) -> None:
    root = cache.call_two()
    cache.at(500.0)
    assert cache.runtime.policies.admission.idle_s(root) == 0.0


def test_agent_is_idle_from_the_last_ones_end(cache: FamilyCache) -> None:
    root = cache.call_two()
    cache.at(100.0)
    cache.end(cache.sub_agents[0], ANSWER)
    cache.at(200.0)
    cache.end(cache.sub_agents[1], ANSWER)
    cache.at(203.0)
    assert cache.runtime.policies.admission.idle_s(root) == pytest.approx(3.0)
    assert root.has_reservation


def test_agent_whose_sub_agents_fall_silent_is_idle(cache: FamilyCache) -> None:
    root = cache.call_two()
    for _ in range(200):
        cache.runtime.returns.observe(root.gap, 50.0)
    for turn in cache.sub_agents:
        cache.end(turn, TurnEnd("tool", ()))
    cache.at(30.0)
    assert cache.runtime.policies.admission.idle_s(root) == 0.0
    cache.at(500.0)
    assert cache.runtime.policies.admission.idle_s(root) == pytest.approx(490.0)


def test_released_agent_is_retained_again_at_the_end(cache: FamilyCache) -> None:
    root = cache.call_two()
    cache.runtime._blocks.release(root)
    for turn in cache.sub_agents:
        assert not root.has_reservation
        cache.end(turn, ANSWER)
    assert root.has_reservation


def test_eviction_expects_an_agent_after_its_last_sub_agent(cache: FamilyCache) -> None:
    """Runs take 100 s: of two, the last ends at the 71 % quantile, 90 s from now."""
    root = cache.call_two()
    for _ in range(400):
        cache.runtime.runs.observe_run(root.gap, 100.0)
    cache.at(20.0)
    priority = cache.runtime.policies.eviction.session_priority(root)
    assert 1.0 / priority == pytest.approx(90.0, rel=0.2)


def test_agent_about_to_return_is_evicted_last(cache: FamilyCache) -> None:
    root = cache.call_two()
    for _ in range(400):
        cache.runtime.runs.observe_run(root.gap, 100.0)
    before = cache.runtime.policies.eviction.session_priority(root)
    for turn in cache.sub_agents:
        cache.end(turn, ANSWER)
    cache.at(11.0)
    assert cache.runtime.policies.eviction.session_priority(root) > 20.0 * before
    assert list(cache.runtime.results_known()) == [root]


def test_sub_agents_blocks_go_first_once_it_has_ended(cache: FamilyCache) -> None:
    cache.call_two()
    cache.end(cache.sub_agents[0], ANSWER)
    evicted = cache.evict(4)
    assert evicted == ["1xyz", "1xy", "1x", "1"]
