"""Sessions without an id whose clients rewrite what stands before the conversation."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.runtime.test_lineage import Message, Server, calls

from holdfast.core.session import Session

RULES = "You edit files. Answer with a block for each change, and with nothing else. " * 3
ANSWERS = [f"The constant of module {number} is changed." for number in range(6)]


@pytest.fixture
def server() -> Server:
    return Server()


def render(messages: Sequence[Message]) -> str:
    return "".join(f"<{role}>{text}¶" for role, text in messages) + "<assistant>"


def prompt_of(turn: int, files: str, rules: str = RULES) -> str:
    """As editors of files have it: rules, conversation, files as they are now, request."""
    messages = [("system", rules)]
    for number in range(turn):
        messages += [("user", f"change {number}"), ("assistant", ANSWERS[number])]
    messages += [("user", f"The files: {files}"), ("assistant", "Ok."), ("user", f"change {turn}")]
    return render(messages)


def chat(server: Server, files: str) -> list[Session]:
    prompts = [prompt_of(turn, f"{files} at {turn} " * 9) for turn in range(5)]
    return [server.turn(prompts[turn], f"{ANSWERS[turn]}¶") for turn in range(5)]


def test_replaced_files_keep_the_session(server: Server) -> None:
    assert len(set(chat(server, "one"))) == 1


def test_another_chat_is_new(server: Server) -> None:
    first, second = (chat(server, files) for files in ("one", "two"))
    assert first[0] is not second[0]
    assert len({*first, *second}) == 2


def test_a_changed_line_in_the_system_prompt_keeps_the_session(server: Server) -> None:
    """A resumed client puts the repository's new state into it."""
    task = [("user", "go on with what we discussed"), ("assistant", ANSWERS[0])]
    first = server.turn(render([("system", f"{RULES}clean"), task[0]]), f"{ANSWERS[0]}¶")
    resumed = server.begin(render([("system", f"{RULES}changed"), *task, ("user", "and now?")]))
    assert resumed.session is first
    assert resumed.because == "answer"


@pytest.mark.parametrize("group", [None, "id"])
def test_agent_that_reads_anothers_answer_is_another(server: Server, group: str | None) -> None:
    """Some frameworks give all agents of a workflow one list of messages."""
    said = [("user", "write it, please"), ("assistant", ANSWERS[0])]
    server.turn(render([("system", "You are the author. " * 9), said[0]]), f"{ANSWERS[0]}¶")
    critic = [("system", "As a critic you judge. " * 9), *said, ("user", "judge it")]
    assert server.begin(render(critic), group).because in ("no_match", "new_id")


@pytest.mark.parametrize("tool", ["spawn_agent", "transfer_to_writer"])
def test_copy_of_an_agent_at_a_tool_is_another(server: Server, tool: str) -> None:
    """Sub-agents, and agents to which a conversation is handed, may start with its history."""
    said = [("user", "split the work up"), ("assistant", ANSWERS[0])]
    prompt = render([("system", f"{RULES}main"), said[0]])
    server.turn(prompt, f"{ANSWERS[0]}¶", calls(tool))
    copy = [("system", f"{RULES}copy"), *said, ("user", "your part")]
    assert server.begin(render(copy)).because == "no_match"


def test_answers_go_with_their_sessions(server: Server) -> None:
    for number in range(150):
        server.turn(render([("user", f"hello from {number}, who listens?")]), f"{ANSWERS[0]}¶")
    answers = server.runtime._lineage._answers
    assert len(answers._tails) == len(server.runtime.sessions) == 100
    server.runtime.content_dropped()
    assert not answers._tails and not answers._by_end
