"""Holdfast's own trace format: reader and writer."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import TraceError
from holdfast.traces.formats.canonical import SCHEMA, read_canonical
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Session, SessionEvent, ToolSpan, Turn, common_prefix_length
from holdfast.traces.storage import COMPRESSIONS, new_file
from holdfast.traces.writers.canonical import write_canonical

Renumber = Callable[[Iterable[Session]], list[Session]]


def session(*turns: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "record": "session",
        "session": "a",
        "block_size_tokens": 16,
        "turns": list(turns) or [{"prompt_tokens": 20}],
    } | fields


def turn(prompt: int = 64, **fields: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt} | fields


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(*sessions: dict[str, Any], prefixes: str = "blocks", **options: Any) -> list[Session]:
        num_turns = sum(len(one["turns"]) for one in sessions)
        path = write_lines(
            "a.jsonl",
            {"record": "trace", "schema": SCHEMA, "prefixes": prefixes},
            *sessions,
            {"record": "end", "num_sessions": len(sessions), "num_turns": num_turns},
        )
        return list(read_sessions(path, **options))

    return build


def written(sessions: Iterable[Session]) -> bytes:
    file = io.BytesIO()
    assert not write_canonical(sessions, file)
    return file.getvalue()


def reread(content: bytes) -> Iterator[Session]:
    file = TraceFile("", content, keeps_text=True)
    return read_canonical(file, interner=PrefixInterner(), scope=1).sessions


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_written_sessions_read_back_block_for_block(recordings: Any, data: Any) -> None:
    sessions = data.draw(recordings)
    assert list(reread(written(sessions))) == sessions


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_format_detected_in_any_compression(tmp_path: Path, suffix: str) -> None:
    one = Session("a", 16, (Turn(0.0, 16, 1, (0,)),), "")
    path = tmp_path / f"t.jsonl{suffix}"
    with new_file(path) as file:
        write_canonical([one], file)
    reports: list[FileReport] = []
    (found,) = read_sessions(path, on_file=reports.append)
    assert found.turns == one.turns
    assert (reports[0].format_name, reports[0].num_sessions) == ("Holdfast", None)


def test_prompt_is_a_prefix_of_from_turn_and_new_blocks(
    read: Any,
) -> None:
    (found,) = read(
        session(
            turn(64, new_blocks=[[10, 3], [7, 1]]),
            turn(48, shared_tokens=32, new_blocks=[[20, 1]]),
            turn(70, from_turn=0, shared_tokens=63, new_blocks=[[30, 1]]),
        )
    )
    assert [one.block_ids for one in found.turns] == [
        (10, 11, 12, 7),
        (10, 11, 20),
        (10, 11, 12, 30),
    ]


def test_without_ids_new_blocks_are_not_shared(read: Any) -> None:
    one, other = read(
        session(turn(64), turn(80, shared_tokens=40)),
        session(turn(16), session="b"),
        prefixes="lengths",
    )
    first, second = (found.block_ids for found in one.turns)
    assert (len(first), len(second)) == (4, 5)
    assert common_prefix_length(first, second) == 2
    assert not set(first[2:] + second[2:]) & set(other.turns[0].block_ids)


def test_ids_of_two_files_are_disjoint(read: Any, tmp_path: Path) -> None:
    read(session(turn(64, new_blocks=[[0, 4]])))
    content = (tmp_path / "a.jsonl").read_bytes()
    (tmp_path / "b.jsonl").write_bytes(content.replace(b'"session":"a"', b'"session":"b"'))
    one, other = read_sessions(tmp_path)
    assert not set(one.turns[0].block_ids) & set(other.turns[0].block_ids)


def test_every_field_of_a_session_is_written(read: Any) -> None:
    _, found = read(
        session(turn(), turn(), turn(), session="p"),
        session(
            turn(
                gap_s=1.5,
                output_tokens=3,
                trigger="tool_result",
                ended_by="tool",
                tool_name="Bash",
                tool_command="git",
                agent="coder",
                model="m",
                latency_s=2.0,
                cached_tokens=16,
                tools=[
                    {
                        "name": "Bash",
                        "command": "git",
                        "start_s": 0.5,
                        "end_s": 1.5,
                        "is_error": True,
                        "is_background": True,
                        "session": "c",
                    }
                ],
            ),
            start_s=4.0,
            parent="p",
            parent_turn=1,
            join_turn=2,
            agent="Explore",
            events=[{"kind": "compaction", "turn": 1, "after_s": 0.25}],
        ),
    )
    assert found.turns == (
        Turn(
            *(1.5, 64, 3, (), "tool_result", "tool", "Bash", "git", "coder", "m", 2.0, 16),
            (ToolSpan("Bash", "git", 0.5, 1.5, True, True, "c"),),
        ),
    )
    assert (found.start_s, found.parent_id, found.parent_turn) == (4.0, "p", 1)
    assert (found.join_turn, found.agent) == (2, "Explore")
    assert found.events == (SessionEvent("compaction", 1, 0.25),)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (session(turn(64, new_blocks=[[0, 5]])), r"turns\[0\].new_blocks: .* at most 4"),
        (session(turn(shared_tokens=1)), r"turns\[0\].from_turn: shares tokens with turn -1"),
        (
            session(turn(), turn(from_turn=1, shared_tokens=1)),
            r"turns\[1\].from_turn: .* before turn 1",
        ),
        (
            session(turn(32), turn(64, shared_tokens=33)),
            r"turns\[1\].shared_tokens: .* at most 32, the shorter",
        ),
        (session(turn(prompt_tokens=-1)), r"turns\[0\].prompt_tokens: Expected `int` >= 0"),
        (session(turn(gap_s="1")), r"turns\[0\].gap_s: Expected `float`, got `str`"),
        (session(turn(promt=1)), r"turns\[0\]: Object contains unknown field `promt`"),
        (session(turns=[]), "turns: Expected `array` of length >= 1"),
        (
            session(turn(tools=[{"name": "x", "start_s": 2, "end_s": 1}])),
            r"turns\[0\].tools\[0\].end_s: .* at least 2.0",
        ),
        (
            session(events=[{"kind": "fork", "turn": 2}]),
            r"events\[0\].turn: before turn 2; expected at most 1",
        ),
        (session(turn(), block_size_tokens=0), "block_size_tokens: Expected `int` >= 1"),
    ],
)
def test_bad_session_is_an_error_or_skipped(
    read: Any, second: dict[str, Any], message: str
) -> None:
    with pytest.raises(TraceError, match=rf"a\.jsonl: line 3, {message}"):
        read(session(), second)
    skipped: list[TraceError] = []
    sessions = read(session(), second, session(session="b"), on_skipped=skipped.append)
    assert [one.session_id for one in sessions] == ["a", "b"]
    assert len(skipped) == 1


def test_ids_in_a_file_without_ids_are_an_error(read: Any) -> None:
    with pytest.raises(TraceError, match=r"turns\[0\].new_blocks: block ids in a file"):
        read(session(turn(new_blocks=[[0, 1]])), prefixes="lengths")


def test_another_version_is_an_error_that_names_it(write_lines: Any) -> None:
    path = write_lines("a.jsonl", {"record": "trace", "schema": "holdfast.trace/2"})
    with pytest.raises(TraceError, match=r"line 1, schema: .*/2'; expected 'holdfast.trace/1'"):
        list(read_sessions(path))


def test_file_cut_between_lines_is_an_error() -> None:
    lines = written([Session("a", 16, (Turn(0.0, 16, 1, (0,)),), "")]).splitlines(keepends=True)
    with pytest.raises(TraceError, match="end: cut off after 1 sessions"):
        list(reread(b"".join(lines[:-1])))
    with pytest.raises(TraceError, match="holds 0 sessions and 0 turns; expected 1 and 1"):
        list(reread(lines[0] + lines[2]))
    with pytest.raises(TraceError, match="line 4, record: a line after the end"):
        list(reread(b"".join(lines) + lines[1]))


def test_linear_session_takes_few_id_ranges_a_turn() -> None:
    grown = [Turn(0.0, 16 * n, 1, tuple(range(n))) for n in range(1, 200)]
    content = written([Session("a", 16, tuple(grown), "")])
    rows = msgspec.json.decode(content.splitlines()[1])["turns"]
    assert all(row["new_blocks"] == [[n, 1]] for n, row in enumerate(rows))


def test_branch_shares_with_the_turn_it_continues() -> None:
    prompts = [(0, 1, 2), (0, 7), (0, 1, 2, 3)]
    turns = tuple(Turn(0.0, 16 * len(ids), 1, ids) for ids in prompts)
    rows = msgspec.json.decode(written([Session("a", 16, turns, "")]).splitlines()[1])["turns"]
    assert (rows[2]["from_turn"], rows[2]["shared_tokens"], rows[2]["new_blocks"]) == (
        0,
        48,
        [[3, 1]],
    )


def test_reading_and_writing_hold_one_session(tmp_path: Path) -> None:
    num_sessions = 400

    def generated() -> Iterator[Session]:
        fresh = count()
        for number in range(num_sessions):
            ids: tuple[int, ...] = ()
            turns = []
            for _ in range(40):
                ids = (*ids, next(fresh), next(fresh))
                turns.append(Turn(1.5, 16 * len(ids), 100, ids, model="m" * 2000))
            yield Session(f"session-{number}", 16, tuple(turns), "")

    path = tmp_path / "large.jsonl"
    tracemalloc.start()
    with new_file(path) as file:
        write_canonical(generated(), file)
    num_read = sum(1 for _ in read_sessions(path))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_read == num_sessions
    assert path.stat().st_size > 30_000_000
    assert peak_bytes < 3_000_000


def test_a_seed_shuffles_families_and_rotates_arrivals(read: Any) -> None:
    names = [f"s{n}" for n in range(20)]
    lines: list[dict[str, Any]] = []
    for name in names:
        lines += [session(session=name), session(session=f"{name}/x", parent=name)]
    order = [one.session_id for one in read(*lines, seed=1)]
    assert order != [line["session"] for line in lines]
    assert order[1::2] == [f"{name}/x" for name in order[::2]]
    arrivals = read(*(session(session=name, start_s=n) for n, name in enumerate(names)), seed=1)
    starts_s = [one.start_s for one in arrivals]
    assert starts_s == [starts_s[0] + n for n in range(20)]
    assert starts_s[0] != 0.0


def test_documented_example_is_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "trace-format.md").read_text()
    example = page.split("```")[1].replace("\n   ", "").encode()
    (found,) = reread(example.lstrip())
    assert [len(one.block_ids) for one in found.turns] == [10, 18]
