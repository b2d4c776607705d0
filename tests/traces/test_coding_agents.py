"""Reader of coding agents' requests and tool calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import TraceError
from holdfast.traces.formats.coding_agents import read_coding_agents
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Session, common_prefix_length


def request(turn: int = 0, prompt: int = 640, prefix: int = 0, **fields: Any) -> dict[str, Any]:
    tools: list[str] = fields.get("tools", [])
    return {
        "src": "demo",
        "session": "s1",
        "agent": "main",
        "turn": turn,
        "t": 10.0 * turn,
        "latency_s": 2.0,
        "model": "m",
        "trigger": "user" if turn == 0 else "tool_result",
        "prompt_tokens": prompt,
        "output_tokens": 5,
        "prefix_tokens": prefix,
        "gap_s": None if turn == 0 else 1.5,
        "stop": None,
        "tools": tools,
        "tool_ids": [f"{turn}-{position}" for position in range(len(tools))],
        "spawned_by": None,
    } | fields


def tool(call_id: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"src": "demo", "session": "s1", "agent": "main", "id": call_id, "name": name} | fields


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(*requests: dict[str, Any], tools: tuple[dict[str, Any], ...] = ()) -> list[Session]:
        path: Path = write_lines("requests.jsonl", *requests)
        if tools:
            write_lines("tools.jsonl", *tools)
        return list(read_sessions(path.parent))

    return build


def shared_blocks(left: Session, right: Session) -> int:
    return common_prefix_length(left.turns[0].block_ids, right.turns[0].block_ids)


def test_a_request_becomes_a_turn_with_its_recorded_figures(read: Any) -> None:
    (session,) = read(request(), request(1, prompt=700, prefix=640, output_tokens=9))
    second = session.turns[1]
    assert (second.gap_s, second.prompt_tokens, second.output_tokens) == (1.5, 700, 9)
    assert (session.session_id, session.agent) == ("demo/s1", "main")


@pytest.mark.parametrize(("prefix", "blocks"), [(640, 10), (639, 9), (64, 1), (63, 0), (0, 0)])
def test_prompt_shares_the_full_blocks_of_the_recorded_prefix(
    read: Any, prefix: int, blocks: int
) -> None:
    (session,) = read(request(), request(1, prompt=1280, prefix=prefix))
    first, second = (turn.block_ids for turn in session.turns)
    assert common_prefix_length(first, second) == blocks
    assert not set(first) & set(second[blocks:])


def test_partial_last_block_is_new_in_the_next_prompt(read: Any) -> None:
    (session,) = read(request(prompt=100), request(1, prompt=200, prefix=100))
    assert common_prefix_length(*(turn.block_ids for turn in session.turns)) == 1


def test_first_prompts_share_the_shorter_of_their_cache_reads(read: Any) -> None:
    long, short = read(request(prefix=320), request(session="s2", prefix=200))
    assert shared_blocks(long, short) == 3


def test_first_prompts_share_no_more_than_the_shortest_of_them(read: Any) -> None:
    # Two resumed conversations share their system message, not their history.
    resumed, other, _ = read(
        request(prefix=600),
        request(session="s2", prefix=600),
        request(session="s3", prompt=128),
    )
    assert shared_blocks(resumed, other) == 2


@pytest.mark.parametrize("field", ["src", "model"])
def test_first_prompts_of_other_sources_and_models_share_nothing(read: Any, field: str) -> None:
    one, other = read(request(prefix=320), request(prefix=320, session="s2") | {field: "other"})
    assert shared_blocks(one, other) == 0


def test_sub_agent_session_has_parent_and_calling_turn(
    read: Any,
) -> None:
    main, explorer = read(
        request(),
        request(agent="x", spawned_by="1-1", prefix=320),
        request(1, tools=["Read", "Task"]),
        tools=(tool("1-1", "Task", subagent="Explore"),),
    )
    assert explorer.session_id == "demo/s1/x"
    assert (explorer.parent_id, explorer.parent_turn) == (main.session_id, 1)
    assert explorer.agent == "Explore"


def test_a_sub_agent_does_not_share_the_main_agents_first_prompt(read: Any) -> None:
    main, explorer = read(request(prefix=320), request(agent="x", prefix=320))
    assert shared_blocks(main, explorer) == 0


def test_unrecorded_call_leaves_the_parent_unknown(read: Any) -> None:
    _, orphan = read(request(), request(agent="x", spawned_by="gone"))
    assert (orphan.parent_id, orphan.parent_turn) == (None, None)


@pytest.mark.parametrize(
    ("fields", "ended_by"),
    [
        ({"tools": ["Read"]}, "tool"),
        ({"stop": "tool_use"}, "tool"),
        ({"stop": "end_turn"}, "human"),
        ({"stop": None}, "human"),
        ({"stop": "max_tokens"}, "unknown"),
    ],
)
def test_answer_tells_the_turn_end(read: Any, fields: Any, ended_by: str) -> None:
    (session,) = read(request(**fields))
    assert session.turns[0].ended_by == ended_by


@pytest.mark.parametrize("trigger", ["user", "meta", "compact"])
def test_request_without_a_tool_result_counts_as_the_users(read: Any, trigger: str) -> None:
    (session,) = read(request(trigger=trigger))
    assert session.turns[0].trigger == "user"


@pytest.mark.parametrize(
    ("tools", "name"),
    [
        (["Read", "Bash", "Edit"], "Bash"),
        (["Task", "Bash"], "Task"),
        (["Bash", "AskUserQuestion"], "AskUserQuestion"),
        (["Grep", "Glob"], "Glob"),
    ],
)
def test_parallel_calls_name_the_tool_that_predicts_the_return(
    read: Any, tools: list[str], name: str
) -> None:
    (session,) = read(request(tools=tools))
    assert session.turns[0].tool_name == name


def test_the_command_is_that_of_the_named_call(read: Any) -> None:
    (session,) = read(
        request(tools=["Bash", "Bash", "Read"]),
        tools=(
            tool("0-0", "Bash", command="git status"),
            tool("0-1", "Bash", command="go test"),
        ),
    )
    assert session.turns[0].tool_command == "go test"


def test_background_command_is_marked(read: Any) -> None:
    (session,) = read(
        request(tools=["Bash"]),
        tools=(tool("0-0", "Bash", command="go test", background=True),),
    )
    assert session.turns[0].tool_command == "go test &"


def test_a_command_is_classed_like_a_live_one(read: Any) -> None:
    (session,) = read(
        request(tools=["Bash"]),
        tools=(tool("0-0", "Bash", command="npx jest"),),
    )
    assert session.turns[0].tool_command == "jest"


def test_a_tool_that_runs_no_shell_has_no_command(read: Any) -> None:
    (session,) = read(
        request(tools=["Task"]),
        tools=(tool("0-0", "Task", command="general", background=True),),
    )
    assert session.turns[0].tool_command is None


def test_commands_unknown_without_the_file_of_tool_calls(read: Any) -> None:
    (session,) = read(request(tools=["Bash"]))
    assert (session.turns[0].tool_name, session.turns[0].tool_command) == ("Bash", None)


def test_missing_gap_is_estimated_from_timestamps_and_counted(write_lines: Any) -> None:
    path = write_lines("requests.jsonl", request(), request(1, gap_s=None, prefix=640))
    reports: list[FileReport] = []
    (session,) = read_sessions(path, on_file=reports.append)
    assert session.turns[1].gap_s == 8.0
    assert reports[0].num_estimated_gaps == 1


def test_sub_agents_follow_their_main_agent_in_any_order(write_lines: Any) -> None:
    lines = [
        request(session=f"s{number}", agent=agent) for number in range(9) for agent in ["x", "main"]
    ]
    path = write_lines("requests.jsonl", *lines)
    sessions = list(read_sessions(path, seed=3))
    for main, sub in zip(sessions[::2], sessions[1::2], strict=True):
        assert sub.session_id == f"{main.session_id}/x"


def test_a_seed_decides_the_order_of_sessions(write_lines: Any) -> None:
    path = write_lines("requests.jsonl", *(request(session=f"s{n}") for n in range(20)))

    def order(seed: int | None) -> list[str]:
        return [session.session_id for session in read_sessions(path, seed=seed)]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(None) == [f"demo/s{n}" for n in range(20)]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (request(2), r"line 2, turn: turn 2 .* expected 1"),
        (request(1, prompt=10, prefix=11), r"line 2, prefix_tokens: 11 tokens .* at most 10"),
        (request(1, prompt=900, prefix=700), r"line 2, prefix_tokens: 700 tokens .* at most 640"),
        (
            request(1) | {"prompt_tokens": "many"},
            r"line 2, prompt_tokens: Expected `int`, got `str`",
        ),
        (request(1, tools=["Read"], tool_ids=[]), r"line 2, tool_ids: 0 ids for 1 `tools`"),
    ],
    ids=["turn", "prefix", "prefix-of-previous", "type", "tool-ids"],
)
def test_a_bad_line_is_an_error_that_names_line_and_field(
    read: Any, second: dict[str, Any], message: str
) -> None:
    with pytest.raises(TraceError, match=rf"requests\.jsonl: {message}"):
        read(request(), second)


def test_a_bad_tool_call_is_an_error_in_its_own_file(read: Any) -> None:
    with pytest.raises(TraceError, match=r"tools\.jsonl: line 1, name: Expected `str`"):
        read(request(), tools=(tool("1", "Read") | {"name": 5},))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from(["main", "x"]),
            st.integers(1, 1000),
            st.floats(0, 1),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_equal_ids_mean_equal_prefixes(assert_prefix_identity: Any, rows: Any) -> None:
    prompts: dict[tuple[str, str], list[int]] = {}
    lines = []
    for session, agent, prompt, share in rows:
        earlier = prompts.setdefault((session, agent), [])
        prefix = int(share * min([prompt, *earlier[-1:]]))
        lines.append(request(len(earlier), prompt, prefix, session=session, agent=agent))
        earlier.append(prompt)
    file = TraceFile("test", b"\n".join(map(msgspec.json.encode, lines)))
    interner = PrefixInterner()
    assert_prefix_identity(read_coding_agents(file, None, interner=interner, scope=1).sessions)
