"""Events of Codex's rollouts, and links between rollouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.traces.codex import call, conversation, line, message, meta, output, used

from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session, SessionEvent, common_prefix_length


@pytest.fixture
def read(write_lines: Any, tmp_path: Path) -> Any:
    def build(*rollouts: list[dict[str, Any]], reports: Any = None) -> list[Session]:
        for number, lines in enumerate(rollouts):
            write_lines(f"rollout-{number}.jsonl", *lines)
        return list(read_sessions(tmp_path, on_file=reports))

    return build


def event(time_s: int, kind: str, **fields: Any) -> dict[str, Any]:
    return line("event_msg", time_s, type=kind, **fields)


def said(time_s: int, text: str) -> list[dict[str, Any]]:
    """Build a user's turn as recorded: the event follows the item."""
    return [
        event(time_s, "task_started"),
        message(time_s, "user", text),
        event(time_s, "user_message", message=text),
    ]


def spawned(parent: str, **fields: Any) -> dict[str, Any]:
    return {"subagent": {"thread_spawn": {"parent_thread_id": parent} | fields}}


def sub_agent(name: str = "child", parent: str = "s", **fields: Any) -> list[dict[str, Any]]:
    return [
        meta(id=name, source=spawned(parent, agent_role="explorer", **fields)),
        message(6, "user", "look around"),
        message(9, "assistant", "done"),
    ]


def parent_of(*children: str) -> list[dict[str, Any]]:
    """Build a parent that starts sub-agents in turn 2 and joins all but one in turn 3."""
    spawns = [call(4, f"c{name}", "spawn_agent", "{}") for name in children]
    given = [output(5, f"c{name}", json.dumps({"agent_id": name})) for name in children]
    statuses = {name: {"completed": "done"} for name in children[:-1]} | {children[-1]: "running"}
    return [
        meta(),
        message(1, "user", "please"),
        message(2, "assistant", "sure"),
        message(3, "user", "go on"),
        *spawns,
        *given,
        call(7, "w", "wait", "{}"),
        output(20, "w", json.dumps({"status": statuses, "timed_out": False})),
        message(22, "assistant", "ready"),
    ]


def test_sub_agent_rollout_has_the_parent_that_started_it(read: Any) -> None:
    main, one, two = read(sub_agent("one"), parent_of("one", "two"), sub_agent("two"))
    assert [main.session_id, one.session_id, two.session_id] == ["s", "one", "two"]
    assert (one.parent_id, one.parent_turn, one.agent) == ("s", 1, "explorer")
    assert [tool.session_id for tool in main.turns[1].tools] == ["one", "two"]
    assert (main.parent_id, main.agent) == (None, "main")


def test_turn_after_a_completed_wait_joins_the_sub_agent(read: Any) -> None:
    main, one, two = read(parent_of("one", "two"), sub_agent("one"), sub_agent("two"))
    assert len(main.turns) == 4
    assert (one.join_turn, two.join_turn) == (3, None)


def test_events_link_sub_agents_like_call_results(read: Any) -> None:
    lines = parent_of("one")
    lines[5] = output(5, "cone", "started")
    lines[7] = output(20, "w", "over")
    lines.insert(5, event(5, "collab_agent_spawn_end", call_id="cone", new_thread_id="one"))
    lines.insert(8, event(20, "collab_waiting_end", statuses={"one": {"errored": "x"}}))
    main, one = read(lines, sub_agent("one"))
    assert (one.parent_turn, one.join_turn) == (1, 3)
    assert main.turns[1].tools[0].session_id == "one"


def test_a_sub_agent_may_be_known_by_its_path(read: Any) -> None:
    lines = parent_of("one")
    lines[5] = output(5, "cone", json.dumps({"task_name": "/root/look"}))
    _, one = read(lines, sub_agent("other", agent_path="/root/look"))
    assert (one.session_id, one.parent_turn) == ("other", 1)


@pytest.mark.parametrize(
    "closing",
    [
        call(30, "x", "close_agent", '{"id": "one"}'),
        event(30, "collab_close_end", receiver_thread_id="one"),
    ],
    ids=["call", "event"],
)
def test_a_sub_agent_that_its_parent_closed_is_closed(read: Any, closing: dict[str, Any]) -> None:
    _, one = read([*parent_of("one"), closing], sub_agent("one"))
    assert one.events == (SessionEvent("close", 1, 21.0),)


def test_parent_without_a_matching_call_is_still_the_parent(read: Any) -> None:
    _, one = read(conversation(), sub_agent("one"))
    assert (one.parent_id, one.parent_turn, one.join_turn) == ("s", None, None)


def test_sub_agent_with_a_missing_parent_counts_as_orphan(read: Any) -> None:
    reports: list[FileReport] = []
    main, one = read(conversation(), sub_agent("one", "gone"), reports=reports.append)
    assert (main.session_id, one.session_id, one.parent_id) == ("s", "one", None)
    assert [report.num_orphans for report in reports] == [0, 1]


def test_a_parent_may_be_named_beside_the_source(read: Any) -> None:
    lines = sub_agent("one")
    lines[0] = meta(id="one", source={"subagent": "review"}, parent_thread_id="s")
    _, one = read(conversation(), lines)
    assert (one.parent_id, one.agent) == ("s", "review")


def fork(*more: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """Build a rollout that begins with a copy of the origin's first two answers."""
    first, *rest = conversation()
    copied = [each | {"timestamp": "2026-01-05T10:10:00Z"} for each in rest[:-3]]
    return [meta(**{"id": "f", "forked_from_id": "s"} | fields), first, *copied, *more]


def test_fork_continues_its_origins_prompt(read: Any) -> None:
    more = [
        message(700, "user", "another way"),
        message(705, "assistant", "yes"),
        used(705, (20000, 130), (7300, 20)),
    ]
    main, forked = read(conversation(), fork(*more))
    assert [turn.prompt_tokens for turn in main.turns] == [6400, 7040, 7200]
    assert [turn.prompt_tokens for turn in forked.turns] == [7300]
    assert forked.events == (SessionEvent("fork", 0),)
    assert (forked.parent_id, forked.turns[0].gap_s) == (None, 0.0)
    shared = common_prefix_length(main.turns[2].block_ids, forked.turns[0].block_ids)
    # All but the two users' messages.
    assert 7040 // 64 <= shared <= 7200 // 64


def test_fork_without_its_origin_keeps_copies_and_is_orphan(
    read: Any,
) -> None:
    reports: list[FileReport] = []
    (forked,) = read(fork(), reports=reports.append)
    assert [turn.prompt_tokens for turn in forked.turns] == [6400, 7040]
    assert (forked.events, reports[0].num_orphans) == ((), 1)


def test_a_fork_that_was_never_answered_is_no_session(read: Any) -> None:
    reports: list[FileReport] = []
    (main,) = read(conversation(), fork(), reports=reports.append)
    assert (main.session_id, reports[0].num_unanswered) == ("s", 1)


def test_a_fork_of_a_fork_shares_with_the_first(read: Any) -> None:
    more = [message(700, "user", "another way"), message(705, "assistant", "yes")]
    again = fork(*more, message(800, "user", "third"), message(805, "assistant", "no"))
    again[0] = meta(id="g", forked_from_id="f")
    main, forked, third = read(conversation(), fork(*more), again)
    assert [len(one.turns) for one in (main, forked, third)] == [3, 1, 1]
    first, last = main.turns[1].block_ids, third.turns[0].block_ids
    assert common_prefix_length(first, last) == len(first)


def test_fork_parent_turns_count_from_its_first_own_turn(read: Any) -> None:
    started = [
        message(700, "user", "another way"),
        message(701, "assistant", "yes"),
        message(702, "user", "go on"),
        call(703, "c", "spawn_agent"),
        output(704, "c", '{"agent_id": "child"}'),
        call(705, "w", "wait"),
        output(720, "w", '{"status": {"child": {"completed": null}}}'),
        message(722, "assistant", "ready"),
    ]
    _, forked, child = read(conversation(), fork(*started), sub_agent(parent="f"))
    assert len(forked.turns) == 4
    assert (child.parent_id, child.parent_turn, child.join_turn) == ("f", 1, 3)


def test_copied_turn_of_a_fork_starts_no_sub_agent(read: Any) -> None:
    first, *rest = parent_of("one", "two")
    copy = [meta(id="f", forked_from_id="s"), first, *rest]
    more = [message(700, "user", "another way"), message(705, "assistant", "yes")]
    _, forked, child = read([first, *rest], [*copy, *more], sub_agent("one", "f"))
    assert len(forked.turns) == 1
    assert (child.parent_id, child.parent_turn) == ("f", None)


def test_events_before_a_fork_are_not_its_own(read: Any) -> None:
    lines = [
        meta(),
        message(1, "user", "please"),
        message(2, "assistant", "yes"),
        line("compacted", 12, message="so far"),
        message(20, "user", "go on"),
        message(21, "assistant", "done"),
    ]
    more = [message(30, "user", "more"), message(31, "assistant", "sure")]
    compacted = line("compacted", 41, message="all of it")
    copy = [meta(id="f", forked_from_id="s"), *lines, *more, compacted]
    main, forked = read(lines, copy)
    assert main.events == (SessionEvent("compaction", 1, 10.0),)
    assert forked.events == (SessionEvent("fork", 0), SessionEvent("compaction", 1, 10.0))


def test_a_compaction_is_an_event_before_the_next_turn(read: Any) -> None:
    (session,) = read(
        [
            meta(),
            message(1, "user", "please"),
            message(2, "assistant", "yes"),
            line("compacted", 12, message="so far"),
            event(12, "context_compacted"),
            message(20, "user", "go on"),
            message(21, "assistant", "yes"),
        ]
    )
    assert session.events == (SessionEvent("compaction", 1, 10.0),)


def rolled_back(num_turns: Any) -> list[dict[str, Any]]:
    return [
        meta(),
        *said(1, "a" * 4000),
        message(2, "assistant", "x"),
        *said(3, "b" * 4000),
        message(4, "assistant", "y"),
        *said(5, "c" * 4000),
        message(6, "assistant", "z"),
        event(9, "thread_rolled_back", num_turns=num_turns),
        *said(10, "d" * 4000),
        message(11, "assistant", "w"),
    ]


@pytest.mark.parametrize(("num_turns", "num_tokens"), [(1, 3000), (2, 2000), (3, 1000)])
def test_rolled_back_turns_are_not_in_the_next_prompt(
    read: Any, num_turns: int, num_tokens: int
) -> None:
    (session,) = read(rolled_back(num_turns))
    assert num_tokens <= session.turns[3].prompt_tokens <= num_tokens + 200
    assert session.events == (SessionEvent("fork", 3, 3.0),)
    # Its history equals that of the turn it returns to.
    back = session.turns[3 - num_turns]
    shared = common_prefix_length(back.block_ids, session.turns[3].block_ids)
    assert shared >= (num_tokens - 1000) // 64


@pytest.mark.parametrize("num_turns", [0, -1, 4, None, "1", 1.5])
def test_rollback_of_missing_turns_changes_nothing(read: Any, num_turns: Any) -> None:
    (session,) = read(rolled_back(num_turns))
    assert (session.events, len(session.turns)) == ((), 4)
    assert session.turns[3].prompt_tokens >= 4000


def test_turn_without_start_event_begins_at_the_user_message(read: Any) -> None:
    lines = [each for each in rolled_back(1) if each["payload"].get("type") != "task_started"]
    (session,) = read(lines)
    assert 3000 <= session.turns[3].prompt_tokens <= 3200


def test_second_rollback_continues_from_the_first(read: Any) -> None:
    lines = rolled_back(1)
    lines.insert(-4, event(9, "thread_rolled_back", num_turns=1))
    (session,) = read(lines)
    assert 2000 <= session.turns[3].prompt_tokens <= 2200
    assert session.events == (SessionEvent("fork", 3, 3.0),)
