"""Which session a prompt continues when clients and chat templates rewrite history."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.runtime.test_runtime import FakeBlock

from holdfast.cache.eviction_queue import EvictionQueue
from holdfast.core.identity import Identity
from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.runtime.runtime import AgentRuntime
from holdfast.tool_calls.syntax import make_call
from holdfast.tool_calls.turn_end import TurnEnd

BLOCK_TOKENS = 8
HUMAN = TurnEnd("human")
TOOLS = "tools: read, write, run, look around, spawn other agents, ask the web, and more. "
HEAD = "You are a coding agent. Be careful with other people's files. " + TOOLS


def calls(name: str) -> TurnEnd:
    call = make_call(name, "{}")
    assert call is not None
    return TurnEnd("tool", (call,))


Message = tuple[str, str]


def render(messages: Sequence[Message], *, opening: str = "") -> str:
    """A chat template; `opening` is what it puts after the last message beyond the role."""
    return "".join(f"<{role}>{text}</>" for role, text in messages) + f"<assistant>{opening}"


def without_old_reasoning(messages: Sequence[Message]) -> list[Message]:
    """As templates of reasoning models have it: what was thought before the last user is gone."""
    last = max(i for i, (role, _) in enumerate(messages) if role == "user")
    return [
        (role, text.split("|")[-1] if role == "assistant" and i < last else text)
        for i, (role, text) in enumerate(messages)
    ]


class Server:
    """A runtime without an engine: prompts are texts, a token is a character."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.runtime = AgentRuntime(max_sessions=100, max_wait_ratio=1.5)
        blocks = [FakeBlock(i) for i in range(8)]
        runtime = self.runtime
        queue = EvictionQueue(blocks, 8, runtime.tree, runtime.priority_of, lambda node, n: None)
        runtime.attach(queue, 8, BLOCK_TOKENS)
        self._num_requests = 0
        self._num_prompt_tokens: dict[str, int] = {}

    def begin(self, prompt: str, group: str | None = None, *, parent: bool = False) -> Turn:
        self.now_s += 1.0
        self._num_requests += 1
        self.runtime.tick(self.now_s)
        turn = self.runtime.turn_arrived(
            f"r{self._num_requests}",
            _hashes(prompt),
            Identity(session_id=group, parent_session_id="parent" if parent else None),
            tokens=[ord(letter) for letter in prompt],
        )
        self.runtime.turn_started(turn)
        self._num_prompt_tokens[turn.request_id] = len(prompt)
        return turn

    def end(self, turn: Turn, text: str, end: TurnEnd | None) -> None:
        self.now_s += 1.0
        self.runtime.tick(self.now_s)
        self.runtime.turn_ended(turn, _hashes(text), end)
        num_tokens = len(text) - self._num_prompt_tokens[turn.request_id]
        self.runtime.turn_answered(turn.session, [ord(letter) for letter in text], num_tokens)

    def turn(
        self,
        prompt: str,
        answer: str = "",
        end: TurnEnd | None = HUMAN,
        group: str | None = None,
        *,
        parent: bool = False,
    ) -> Session:
        turn = self.begin(prompt, group, parent=parent)
        self.end(turn, prompt + answer, end)
        return turn.session


def _hashes(text: str) -> list[bytes]:
    ends = range(BLOCK_TOKENS, len(text) + 1, BLOCK_TOKENS)
    return [text[:end].encode() for end in ends]


@pytest.fixture
def server() -> Server:
    return Server()


def loop(server: Server, messages: list[Message], group: str | None = None) -> list[Session]:
    """A message of the user, two tool calls and a last answer; returns the session of each turn."""
    sessions = []
    for step, end in enumerate([calls("Read"), calls("Bash"), HUMAN]):
        answer = f"I think about step {step} of it for long|step {step}"
        prompt = render(without_old_reasoning(messages))
        sessions.append(server.turn(prompt, answer, end, group))
        messages.append(("assistant", answer))
        if end is not HUMAN:
            messages.append(("tool", f"what the tool found in step {step}"))
    return sessions


# The loop a prompt belongs to.


@pytest.mark.parametrize("group", [None, "id"])
def test_dropped_reasoning_keeps_the_session(server: Server, group: str | None) -> None:
    messages = [("system", HEAD)]
    found = []
    for number in range(4):
        messages.append(("user", f"request {number}"))
        found += loop(server, messages, group)
    assert len(set(found)) == 1


def test_user_message_while_a_tool_runs_keeps_the_session(server: Server) -> None:
    messages = [("system", HEAD), ("user", "start the agents"), ("assistant", "long thought|go")]
    first = server.turn(render(messages[:2]), "long thought|go", calls("spawn_agent"))
    messages += [("user", "an agent has ended")]
    assert server.turn(render(without_old_reasoning(messages))) is first


def test_equal_first_prompts_are_several_sessions(server: Server) -> None:
    """Best of n: the first run is at a tool when the others begin as it did."""
    start = [("system", HEAD), ("user", "fix it")]
    nodes: list[list[Message]] = [list(start) for _ in range(3)]
    sessions = []
    for number, node in enumerate(nodes):
        sessions.append(server.turn(render(node), f"plan {number}", calls("Bash")))
        node += [("assistant", f"plan {number}"), ("tool", f"result {number}")]
        assert server.turn(render(node), "more", calls("Bash")) is sessions[-1]
    assert len(set(sessions)) == 3


@pytest.mark.parametrize("request_text", ["b", "another", "fix it now", "fi"])
@pytest.mark.parametrize("num_loops", [1, 2])
def test_another_request_to_the_same_agent_is_new(
    server: Server, request_text: str, num_loops: int
) -> None:
    """Messages shorter than a block do not show in prefix hashes."""
    messages = [("system", HEAD), ("user", "fix it")]
    for _ in range(num_loops):
        (*_, session) = loop(server, messages)
        messages.append(("user", "and now"))
    other = server.begin(render([("system", HEAD), ("user", request_text)]))
    assert other.session is not session
    assert other.because == "no_match"


def test_another_request_after_a_single_turn_is_new(server: Server) -> None:
    """All that differs may come after the last whole block."""
    shared = "y" * 10 * BLOCK_TOKENS
    first = server.turn(shared + "abc>>", "done")
    assert server.turn(shared + "abd>>", "done") is not first
    assert server.turn(shared + "abc>>done>more>>") is first


def test_a_loop_is_over_once_the_human_is_back(server: Server) -> None:
    messages = [("system", HEAD), ("user", "one"), ("assistant", "done")]
    first = server.turn(render(messages[:2]), "done", HUMAN)
    messages.append(("user", "two"))
    assert server.turn(render(messages), "done again", HUMAN) is first
    edited = [*messages[:2], ("assistant", "an answer that was edited"), ("user", "two")]
    assert server.turn(render(edited)) is not first


@pytest.mark.parametrize(("first", "then"), [("a", "b"), ("a", None), (None, "b")])
def test_loops_are_found_within_their_id_only(
    server: Server, first: str | None, then: str | None
) -> None:
    messages = [("system", HEAD), ("user", "one")]
    (*_, session) = loop(server, messages, first)
    messages.append(("user", "two"))
    prompt = render(without_old_reasoning(messages))
    assert server.turn(prompt, "x", HUMAN, then) is not session


@pytest.mark.parametrize("length", range(BLOCK_TOKENS))
def test_thoughts_left_out_of_history_keep_the_session(server: Server, length: int) -> None:
    """The generation prompt may straddle a block's end; what it adds is not in later prompts."""
    server.turn(render([("system", HEAD), ("user", "hello")], opening="<think>"))
    messages = [("system", HEAD), ("user", "x" * length)]
    first = server.turn(render(messages, opening="<think>"), "hm</think>done", calls("Read"))
    messages += [("assistant", "done"), ("tool", "found")]
    assert server.turn(render(messages, opening="<think>")) is first


@pytest.mark.parametrize("length", range(BLOCK_TOKENS))
def test_thoughts_opened_within_a_loop_keep_its_start(server: Server, length: int) -> None:
    """Whatever block a tool's turn ends in, the next message of the user drops older thoughts."""
    messages = [("system", HEAD), ("user", "hello")]
    found = []
    for end in (calls("Read"), calls("Bash"), HUMAN):
        thought = "I think of this at length"
        prompt = render(without_old_reasoning(messages), opening="<think>")
        found.append(server.turn(prompt, f"{thought}</think>done", end))
        messages += [("assistant", f"{thought}|done"), ("tool", "x" * length)]
    messages[-1] = ("user", "and now")
    found.append(server.turn(render(without_old_reasoning(messages), opening="<think>")))
    assert len(set(found)) == 1


def test_other_prompts_do_not_disturb_what_a_template_opens_with(server: Server) -> None:
    """Completions without a template may end in any token, and there may be many of them."""
    for number in range(200):
        server.turn("text of a completion, one of many, without a template " + chr(0x100 + number))
        server.turn(f"line {number} of a completion that ends as chats do>")
        if number % 20 == 0:
            messages = [("system", HEAD), ("user", f"hello {number}")]
            first = server.turn(render(messages, opening="<think>"), "hm</think>ok", calls("Read"))
            messages += [("assistant", "ok"), ("tool", "found")]
            assert server.turn(render(messages, opening="<think>")) is first


def test_deepest_loop_wins(server: Server) -> None:
    """A fork of a conversation that is in the engine begins a deeper loop."""
    messages = [("system", HEAD), ("user", "one")]
    (*_, trunk) = loop(server, messages)
    messages = without_old_reasoning([*messages, ("user", "two")])
    running = server.begin(render(messages))
    assert running.session is trunk
    fork = [*messages, ("assistant", "so far"), ("user", "something else")]
    (*_, beside) = loop(server, fork)
    server.end(running, render(messages) + "so far", HUMAN)
    assert beside is not trunk
    fork.append(("user", "three"))
    assert server.turn(render(without_old_reasoning(fork))) is beside


# What is forgotten, and what is not known.


def test_without_tokens_only_prefixes_count() -> None:
    runtime = Server().runtime
    first = runtime.turn_arrived("1", _hashes(render([("user", "hello" * 9)])))
    runtime.turn_started(first)
    runtime.turn_ended(first, _hashes(render([("user", "hello" * 9)])), HUMAN)
    again = runtime.turn_arrived("2", _hashes(render([("user", "hello" * 9 + ", you")])))
    assert again.because == "no_match"


def test_marks_go_with_their_sessions(server: Server) -> None:
    for number in range(150):
        server.turn(render([("user", f"{number} says hello to everybody who listens")]))
    marks = server.runtime._lineage._marks
    assert len(marks._of) == len(server.runtime.sessions) == 100
    assert sum(map(len, marks._by_hash.values())) == sum(map(len, marks._of.values()))
    server.runtime.content_dropped()
    assert not marks._of and not marks._by_hash
