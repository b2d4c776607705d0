"""A result from memory is always the one that the server would give now."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from holdfast.mcp_proxy.call_policies import CallPolicies
from holdfast.mcp_proxy.file_stamp import FileStamp
from holdfast.mcp_proxy.session_calls import Call, ResultRules, SessionCalls
from holdfast.mcp_proxy.tool_traits import ToolTraits
from holdfast.policies.calls import CallPolicy
from holdfast.policies.registry import CALL_POLICIES

NUM_INTERLEAVINGS = 10_000
LONG_AGO_S = 1_000.0
READ = ToolTraits(is_read_only=True, is_open_world=False)


class Clock:
    """Time that tests move."""

    def __init__(self) -> None:
        self.now_s = 5_000.0

    def __call__(self) -> float:
        return self.now_s


def no_files(_arguments: object) -> FileStamp:
    return FileStamp(b"", 0.0, 0)


@dataclass(frozen=True)
class Remembered:
    """A call that is answered from memory."""

    result: Mapping[str, Any]


class Memory(SessionCalls):
    """The calls of a session, with policies that keep results."""

    def ask(self, asked: dict[str, Any]) -> Call | Remembered:
        """A call of the client."""
        call = self.begin(asked)
        recalled = self.recall(call)
        if recalled is None:
            return call
        self.count_answer(*recalled)
        self.answer(call, recalled[1].result, recalled[1])
        return Remembered(recalled[1].result)


def memory(
    clock: Clock,
    stamp: Callable[[object], FileStamp | None] = no_files,
    rules: ResultRules | None = None,
    traits: ToolTraits = READ,
    policies: Sequence[CallPolicy] | None = None,
) -> Memory:
    if policies is None:
        policies = [CALL_POLICIES.build("result-memory", {})]
    made = Memory(1, CallPolicies(policies), stamp, clock, clock, rules or ResultRules())
    made.learn_tools({"read": traits, "write": ToolTraits()})
    return made


def params(tool: str, **arguments: Any) -> dict[str, Any]:
    return {"name": tool, "arguments": arguments}


def result(text: str = "text", **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], **more}


def make(known: Memory, asked: dict[str, Any], answer: dict[str, Any] | None) -> Call:
    call = known.ask(asked)
    assert isinstance(call, Call)
    known.end(call, answer)
    return call


class World:
    """A server with one value a key, and files beside it that anyone may change.

    A call takes effect at any time between its begin and its end.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.values = dict.fromkeys("ab", 0)
        self.files = dict.fromkeys("ab", (0, LONG_AGO_S))
        self.memory = memory(self.clock, self.stamp)
        self.open: list[tuple[str, str, Call, list[Any]]] = []
        self.num_written = self.num_answered = 0

    def stamp(self, arguments: Any) -> FileStamp:
        version, changed_s = self.files[arguments["key"]]
        return FileStamp(str(version).encode(), changed_s, 1)

    def seen(self, key: str) -> tuple[int, int]:
        return self.values[key], self.files[key][0]

    def step(self) -> None:
        action = self.random.choice(("read", "read", "write", "effect", "end", "file", "cancel"))
        key = self.random.choice("ab")
        self.clock.now_s += self.random.choice((0.0, 0.5, 2.0, 40.0))
        if action in ("read", "write"):
            self.begin(action, key)
        elif action == "file":
            self.num_written += 1
            self.files[key] = (self.num_written, self.clock.now_s)
        elif self.open:
            getattr(self, action)(self.random.randrange(len(self.open)))

    def begin(self, tool: str, key: str) -> None:
        outcome = self.memory.ask(params(tool, key=key))
        if isinstance(outcome, Remembered):
            self.num_answered += 1
            assert outcome.result == result(str(self.seen(key)))
        else:
            self.open.append((tool, key, outcome, []))

    def effect(self, index: int) -> None:
        tool, key, _, seen = self.open[index]
        if seen:
            return
        if tool == "write":
            self.num_written += 1
            self.values[key] = self.num_written
        seen.append(self.seen(key))

    def end(self, index: int) -> None:
        self.effect(index)
        _, _, call, seen = self.open.pop(index)
        self.memory.end(call, result(str(seen[0])))

    def cancel(self, index: int) -> None:
        """A cancelled call still takes effect, soon or never."""
        self.memory.cancel(self.open[index][2])
        if self.random.random() < 0.5:
            self.effect(index)
        self.open.pop(index)


def test_no_answer_is_stale_in_random_interleavings() -> None:
    num_answered = 0
    for seed in range(NUM_INTERLEAVINGS):
        world = World(seed)
        for _ in range(20):
            world.step()
        num_answered += world.num_answered
    assert num_answered > NUM_INTERLEAVINGS / 10  # or nothing was tried


def test_equal_call_is_answered_with_the_same_result() -> None:
    clock = Clock()
    known = memory(clock)
    call = known.ask(params("read", a=1, b=[2]))
    assert isinstance(call, Call)
    clock.now_s += 2.5
    known.end(call, result(structuredContent={"x": 1}))

    again = known.ask({"name": "read", "arguments": {"b": [2], "a": 1}, "_meta": {"t": 7}})

    assert again == Remembered(result(structuredContent={"x": 1}))
    assert (known.counts.calls, known.counts.answered, known.counts.saved_s) == (2, 1, 2.5)


def test_other_arguments_are_another_call() -> None:
    known = memory(Clock())
    make(known, params("read", a=1), result())
    assert isinstance(known.ask(params("read", a=2)), Call)
    assert isinstance(known.ask(params("read", a=True)), Call)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(None, id="protocol error"),
        pytest.param(result(isError=True), id="tool error"),
        pytest.param({"resultType": "input_required", "content": []}, id="input required"),
        pytest.param({}, id="no content"),
    ],
)
def test_what_is_no_result_is_not_remembered(answer: dict[str, Any] | None) -> None:
    known = memory(Clock())
    make(known, params("read"), answer)
    assert isinstance(known.ask(params("read")), Call)


def test_change_forgets_and_blocks_until_it_has_ended() -> None:
    known = memory(Clock())
    make(known, params("read"), result())
    change = known.ask(params("write"))
    assert isinstance(change, Call)
    make(known, params("read"), result())
    assert isinstance(known.ask(params("read")), Call)

    known.end(change, result())
    make(known, params("read"), result("new"))

    assert known.ask(params("read")) == Remembered(result("new"))


def test_read_that_a_change_overtakes_is_not_remembered() -> None:
    known = memory(Clock())
    read = known.ask(params("read"))
    assert isinstance(read, Call)
    make(known, params("write"), result())
    known.end(read, result("old or new"))
    assert isinstance(known.ask(params("read")), Call)


def test_cancelled_change_counts_for_a_minute() -> None:
    clock = Clock()
    known = memory(clock)
    change = known.ask(params("write"))
    assert isinstance(change, Call)
    known.cancel(change)
    make(known, params("read"), result())
    assert isinstance(known.ask(params("read")), Call)
    clock.now_s += 61.0
    make(known, params("read"), result())
    assert isinstance(known.ask(params("read")), Remembered)


def test_task_counts_as_a_change_after_its_first_answer() -> None:
    clock = Clock()
    known = memory(clock)
    make(known, params("write") | {"task": {"ttl": 1000}}, {"task": {}})
    make(known, params("read"), result())
    assert isinstance(known.ask(params("read")), Call)


def test_unknown_tool_is_a_change() -> None:
    known = memory(Clock())
    make(known, params("read"), result())
    make(known, params("other"), result())
    assert isinstance(known.ask(params("read")), Call)
    assert known.counts.changes == 1


def test_forgotten_tools_are_changes_until_they_are_known() -> None:
    known = memory(Clock())
    make(known, params("read"), result())
    known.forget_tools()
    assert isinstance(known.ask(params("read")), Call)
    assert known.counts.changes == 1


@pytest.mark.parametrize(
    ("is_open_world", "num_files", "always", "is_remembered"),
    [
        (False, 0, False, True),
        (None, 1, False, True),
        (None, 0, False, False),
        (True, 1, False, False),
        (True, 0, True, True),
        (None, 0, True, True),
    ],
)
def test_results_are_kept_only_of_what_can_be_watched(
    is_open_world: bool | None, num_files: int, always: bool, is_remembered: bool
) -> None:
    rules = ResultRules(always=frozenset({"read"}) if always else frozenset())
    traits = ToolTraits(is_read_only=True, is_open_world=is_open_world)
    known = memory(Clock(), lambda _: FileStamp(b"", LONG_AGO_S, num_files), rules, traits)
    make(known, params("read"), result())
    assert isinstance(known.ask(params("read")), Remembered) is is_remembered


def test_always_does_not_make_a_change_a_read() -> None:
    known = memory(Clock(), rules=ResultRules(always=frozenset({"write"})))
    make(known, params("write"), result())
    assert isinstance(known.ask(params("write")), Call)


def test_never_wins() -> None:
    names = frozenset({"read"})
    known = memory(Clock(), rules=ResultRules(always=names, never=names))
    make(known, params("read"), result())
    assert isinstance(known.ask(params("read")), Call)


def test_file_changed_a_moment_ago_is_not_trusted() -> None:
    clock = Clock()
    known = memory(clock, lambda _: FileStamp(b"", 4_999.5, 1))
    make(known, params("read"), result())
    assert isinstance(known.ask(params("read")), Call)
    clock.now_s += 1.0
    make(known, params("read"), result())
    assert isinstance(known.ask(params("read")), Remembered)


def test_result_is_forgotten_in_time() -> None:
    clock = Clock()
    known = memory(clock, rules=ResultRules(ttl_s=10.0))
    make(known, params("read"), result())
    clock.now_s += 9.9
    assert isinstance(known.ask(params("read")), Remembered)
    clock.now_s += 0.2
    assert isinstance(known.ask(params("read")), Call)


def test_memory_is_bounded() -> None:
    small = CALL_POLICIES.build("result-memory", {"max_mib": 250 / 2**20})
    known = memory(Clock(), rules=ResultRules(max_result_bytes=120), policies=[small])
    for number in range(20):
        make(known, params("read", number=number), result("x" * 40))
    make(known, params("read", number="large"), result("x" * 200))
    asked = [known.ask(params("read", number=n)) for n in (*range(20), "large")]
    assert sum(isinstance(each, Remembered) for each in asked) == 250 // 77
    assert isinstance(asked[19], Remembered)


def test_early_call_is_one_that_would_be_remembered() -> None:
    clock = Clock()
    known = memory(clock)
    assert known.begin_early("write", {}) is None
    assert known.begin_early("unlisted", {}) is None
    early = known.begin_early("read", {"a": 1})
    assert early is not None
    assert known.end(early, result("early"))
    again = known.begin_early("read", {"a": 1})
    assert again is not None
    assert known.recall(again) is not None  # so there is no need to make it
    assert known.ask(params("read", a=1)) == Remembered(result("early"))
    change = known.ask(params("write"))
    assert isinstance(change, Call)
    assert known.begin_early("read", {"a": 1}) is None
    assert known.counts.calls == 2


def test_early_call_needs_files_that_have_settled() -> None:
    clock = Clock()
    known = memory(clock, lambda _: FileStamp(b"", 4_999.5, 1))
    assert known.begin_early("read", {}) is None
    clock.now_s += 1.0
    assert known.begin_early("read", {}) is not None


def test_equal_calls_have_no_change_between_them() -> None:
    version = b"1"
    known = memory(Clock(), lambda _: FileStamp(version, LONG_AGO_S, 1))
    early = known.begin_early("read", {"a": 1})
    same, other = known.ask(params("read", a=1)), known.ask(params("read", a=2))
    assert early is not None
    assert isinstance(same, Call)
    assert isinstance(other, Call)
    assert early.version == same.version == other.version
    assert early.asked is not None
    assert same.asked is not None
    assert other.asked is not None
    assert early.asked.key == same.asked.key != other.asked.key
    make(known, params("write"), result())
    after_change = known.ask(params("read", a=1))
    version = b"2"
    after_edit = known.ask(params("read", a=1))
    assert isinstance(after_change, Call)
    assert isinstance(after_edit, Call)
    assert len({early.version, after_change.version, after_edit.version}) == 3


def test_missing_arguments_are_no_arguments() -> None:
    known = memory(Clock())
    make(known, {"name": "read"}, result())
    assert isinstance(known.ask({"name": "read", "arguments": {}}), Remembered)


def test_outdated_result_is_dropped_and_counted_once() -> None:
    stamp = FileStamp(b"1", LONG_AGO_S, 1)
    known = memory(Clock(), lambda _: stamp)
    make(known, params("read"), result())
    stamp = FileStamp(b"2", 5_000.0, 1)  # just now, so that no new result replaces it
    for _ in range(2):
        make(known, params("read"), result())
    assert known.counts.outdated == 1
