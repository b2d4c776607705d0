"""Which stream of an explicit id a prompt continues, and when it is one beside them."""

from __future__ import annotations

import pytest
from tests.runtime.test_lineage import HEAD, HUMAN, TOOLS, Message, Server, calls, loop, render

from holdfast.core.session import Session, SessionState
from holdfast.tool_calls.turn_end import TurnEnd


@pytest.fixture
def server() -> Server:
    return Server()


def _resumed(head: str, number: int) -> str:
    history = [("user", "request"), ("assistant", "answer " * 9)] * (number + 1)
    return render([("system", head), *history, ("user", "go on")])


@pytest.mark.parametrize(
    "rewrite",
    {
        "system messages merged": lambda n: _resumed(HEAD + "Note. " * n + TOOLS, n),
        "tools that grow": lambda n: _resumed(HEAD[:40] + "tool, " * n + HEAD[40:], n),
        "another head": lambda n: _resumed(f"{n} changed files. " + HEAD, n),
        "files replaced": lambda n: render(
            [("system", "Edit."), ("user", f"file {n} " * 40), ("user", "history " * (9 + n))]
        ),
    }.values(),
)
@pytest.mark.parametrize("end", [HUMAN, calls("ToolSearch")])
def test_an_id_is_trusted_where_history_is_rewritten(
    server: Server, rewrite: object, end: TurnEnd
) -> None:
    assert callable(rewrite)
    sessions = {server.turn(rewrite(number), "answer", end, "id") for number in range(5)}
    assert len(sessions) == 1
    (session,) = sessions
    assert session.num_turns == 5


def test_a_rewritten_session_keeps_what_was_learned(server: Server) -> None:
    before = server.turn(_resumed(HEAD, 0), "answer", HUMAN, "id")
    assert before.has_reservation
    old = before.prompt_tail
    after = server.turn(_resumed("other " + HEAD, 1), "answer", HUMAN, "id")
    assert after is before and after.has_reservation and after.speed is before.speed
    assert old not in set(after.tail.path())
    assert server.runtime.returns.num_observed == 1.0


def test_compaction_under_an_id_keeps_the_session(server: Server) -> None:
    messages = [("system", HEAD), ("user", "request")]
    (*_, session) = loop(server, messages, "id")
    messages.append(("user", "Write a summary."))
    assert server.turn(render(messages), "What was done. " * 9, HUMAN, "id") is session
    compacted = [("system", HEAD), ("user", "Summary. What was done. " * 9)]
    assert server.turn(render(compacted), "on", calls("Read"), "id") is session


def test_a_prompt_beside_one_in_the_engine_is_an_own_stream(server: Server) -> None:
    main = server.begin(_resumed(HEAD, 1), "id")
    beside = server.begin(_resumed("other " + HEAD, 2), "id")
    assert beside.session is not main.session
    assert (main.because, beside.because) == ("new_id", "in_engine")


def _title(text: str) -> str:
    return render([("system", "Write a title of three words."), ("user", text)])


@pytest.mark.parametrize("is_title_first", [True, False])
def test_calls_for_a_title_are_streams_beside_their_session(
    server: Server, is_title_first: bool
) -> None:
    titles = []
    messages = [("system", HEAD), ("user", "fix it")]
    if is_title_first:
        titles.append(server.turn(_title("fix it"), "Fix it now", HUMAN, "id"))
    (main, *_) = loop(server, messages, "id")
    for number in range(3):
        titles.append(server.turn(_title(f"and {number}"), "And on", HUMAN, "id"))
        messages.append(("user", f"and {number}"))
        assert set(loop(server, messages, "id")) == {main}
    assert len({main, *titles}) == 1 + len(titles)
    assert all(title.state is SessionState.CLOSED and not title.has_reservation for title in titles)
    assert main.state is SessionState.HUMAN_AWAY and main.has_reservation


def test_side_calls_stay_apart_where_no_stream_calls_a_tool(server: Server) -> None:
    """A chat whose files are replaced at each turn, and a message for each commit."""
    chats, commits = [], []
    for number in range(4):
        files = f"file {number} " * 40
        chat = [("system", "Edit."), ("user", files), ("user", "history " * (9 + number))]
        chats.append(server.turn(render(chat), "edited", HUMAN, "id"))
        diff = [("system", "Write a commit message."), ("user", f"{number} lines differ")]
        commits.append(server.turn(render(diff), "Edit", HUMAN, "id"))
    assert len(set(chats)) == 1 and len({*chats, *commits}) == 5
    assert all(commit.state is SessionState.CLOSED for commit in commits)


def test_sub_agents_under_their_roots_id_are_own_streams(server: Server) -> None:
    """Their prompts begin as their root's do; the root waits for them."""
    messages = [("system", HEAD), ("user", "a long request with everything that matters " * 4)]
    main = server.turn(render(messages), "go", calls("Task"), "root")
    found = []
    for number in range(2):
        task: list[Message] = [("system", HEAD), ("user", f"task {number}")]
        found.append(set(loop(server, task, "root")))
    assert found[0] != found[1] and all(len(sessions) == 1 for sessions in found)
    assert {session.state for sessions in found for session in sessions} == {SessionState.CLOSED}
    messages += [("assistant", "go"), ("tool", "both are done")]
    assert server.turn(render(messages), "done", HUMAN, "root") is main


def test_sub_agents_that_may_be_each_other_are_not_merged(server: Server) -> None:
    """Begun at once under the id of their root; a note is merged into the head of each."""
    messages = [("system", "Root. " + HEAD), ("user", "a long request " * 12)]
    server.turn(render(messages), "go", calls("Task"), "root")
    tasks = [("user", "task one"), ("user", "task two")]
    turns = [server.begin(render([("system", HEAD), task]), "root") for task in tasks]
    for turn, task in zip(turns, tasks, strict=True):
        server.end(turn, render([("system", HEAD), task]) + "look", calls("Read"))
    again = [
        server.turn(
            render([("system", HEAD + "Note."), task, ("assistant", "look"), ("tool", "x" * 40)]),
            "done",
            HUMAN,
            "root",
        )
        for task in tasks
    ]
    assert turns[0].session is not again[1] and turns[1].session is not again[0]
    assert again[0] is not again[1]


def test_title_before_a_chat_without_tools_stays_apart(server: Server) -> None:
    titles = [server.turn(_title("fix it"), "Fix it", HUMAN, "id")]
    messages = [("system", HEAD), ("user", "fix it")]
    chat = server.turn(render(messages), "done", HUMAN, "id")
    titles.append(server.turn(_title("go on"), "Go on", HUMAN, "id"))
    messages += [("assistant", "done"), ("user", "go on")]
    assert server.turn(render(messages), "done", HUMAN, "id") is chat
    assert len({chat, *titles}) == 3


def test_an_id_shown_to_name_several_streams_is_trusted_no_more(server: Server) -> None:
    """Two conversations of one user, both under the name of that user."""
    chats: list[list[Message]] = [
        [("system", HEAD), ("user", f"Of {topic}. " * 20)] for topic in ("cats", "dogs")
    ]
    sessions: list[list[Session]] = [[], []]
    for _ in range(4):
        for chat, found in zip(chats, sessions, strict=True):
            found.append(server.turn(render(chat), "answer", HUMAN, "user"))
            chat += [("assistant", "answer"), ("user", "and " * 20)]
    assert [len(set(found[1:])) for found in sessions] == [1, 1]
    assert sessions[0][-1] is not sessions[1][-1]
