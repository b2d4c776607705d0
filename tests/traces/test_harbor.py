"""Directories of Harbor's jobs: ignored files, and sessions recorded twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.traces.atif import agent, step, trajectory
from tests.traces.claude_code import answered, result, said, usage
from tests.traces.codex import conversation, meta

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions, trace_files
from holdfast.traces.record import Session

ID = "11111111-0000-4000-8000-00000000000a"
OTHER_ID = "22222222-0000-4000-8000-00000000000b"


def write(path: Path, *lines: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    return path


def recorded(path: Path, session_id: str = ID) -> Path:
    lines = [
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(640, 600), tool=("t", "Read", {})),
        result("r", "a1", 5, "t"),
        answered("a2", "r", 9, usage(800, 640)),
    ]
    return write(path, *(line | {"sessionId": session_id} for line in lines))


def converted(path: Path, session_id: str = ID, **fields: Any) -> Path:
    steps = (step("user", 0), agent(4, 600, "Read"), agent(9, 640))
    return write(path, trajectory(*steps, session_id=session_id, **fields))


def trial(job: Path, name: str = "task__abc") -> Path:
    """Make a job's directory with a trial; return the trial's."""
    write(job / "config.json", {"job_name": job.name, "n_attempts": 1, "agents": []})
    write(job / "result.json", {"id": "x", "n_total_trials": 1, "stats": {}})
    directory = job / name
    write(directory / "config.json", {"task": {"path": "x"}, "trial_name": name, "agent": {}})
    write(directory / "result.json", {"task_name": "task", "trial_name": name})
    write(directory / "verifier" / "ctrf.json", {"results": {"tests": []}})
    write(directory / "artifacts" / "out.jsonl", {"timestamp": 0, "input_length": 1})
    return directory


def recorded_in(agent_directory: Path) -> Path:
    return recorded(agent_directory / "sessions" / "projects" / "-app" / f"{ID}.jsonl")


def prompts(session: Session) -> list[int]:
    return [turn.prompt_tokens for turn in session.turns]


def test_recording_is_read_instead_of_its_conversion(tmp_path: Path) -> None:
    directory = trial(tmp_path / "jobs" / "today")
    converted(directory / "agent" / "trajectory.json")
    recorded_in(directory / "agent")
    for path in (tmp_path, tmp_path / "jobs" / "today", directory, directory / "agent"):
        reports: list[FileReport] = []
        (session,) = read_sessions(path, on_file=reports.append)
        assert (session.session_id, prompts(session)) == (ID, [640, 800])
        assert [report.format_name for report in reports] == ["Claude Code"]


def test_trial_found_from_inside_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = trial(tmp_path / "job")
    converted(directory / "agent" / "trajectory.json", OTHER_ID)
    recorded_in(directory / "agent")
    for inside in (directory, directory / "agent"):
        monkeypatch.chdir(inside)
        (session,) = read_sessions(Path())
        assert prompts(session) == [640, 800]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_order_of_files_does_not_matter(tmp_path: Path, seed: int) -> None:
    directory = trial(tmp_path / "job")
    converted(directory / "agent" / "trajectory.json")
    recorded_in(directory / "agent")
    (session,) = read_sessions(tmp_path, seed=seed)
    assert prompts(session) == [640, 800]


def test_a_trajectory_without_a_recording_is_read(tmp_path: Path) -> None:
    directory = trial(tmp_path / "job")
    converted(directory / "agent" / "trajectory.json")
    write(directory / "agent" / "episode-0" / "debug.json", {"messages": [], "response": {}})
    write(directory / "agent" / "openhands.trajectory.json", [{"action": "run"}])
    (directory / "agent" / "empty.json").touch()
    (session,) = read_sessions(tmp_path)
    assert (session.session_id, prompts(session)) == (ID, [600, 640])


def test_a_conversion_in_a_trial_may_have_another_id(tmp_path: Path) -> None:
    directory = trial(tmp_path / "job")
    converted(directory / "agent" / "trajectory.json", OTHER_ID)
    recorded_in(directory / "agent")
    # The recording of another trial is another session.
    other = trial(tmp_path / "job", "task__def")
    converted(other / "agent" / "trajectory.json", "c")
    sessions = {session.session_id: session for session in read_sessions(tmp_path)}
    assert {name: prompts(one) for name, one in sessions.items()} == {
        ID: [640, 800],
        "c": [600, 640],
    }


def test_conversion_elsewhere_is_matched_by_name(tmp_path: Path) -> None:
    converted(tmp_path / "atif" / "one.json")
    converted(tmp_path / "atif" / "two.json", OTHER_ID)
    recorded(tmp_path / "sessions" / f"{ID}.jsonl")
    rollout = [meta(id=OTHER_ID), *conversation()[1:]]
    write(tmp_path / "sessions" / f"rollout-2026-01-05T10-00-00-{OTHER_ID}.jsonl", *rollout)
    reports: list[FileReport] = []
    sessions = list(read_sessions(tmp_path, on_file=reports.append))
    assert [session.session_id for session in sessions] == [ID, OTHER_ID]
    assert [report.format_name for report in reports] == ["Claude Code", "Codex"]


def test_children_of_an_unread_conversion_are_not_read(tmp_path: Path) -> None:
    directory = trial(tmp_path / "job")
    rest = "trajectory.cont-1.json"
    converted(directory / "agent" / "trajectory.json", continued_trajectory_ref=rest)
    converted(directory / "agent" / rest, f"{ID}-cont-1")
    recorded_in(directory / "agent")
    (session,) = read_sessions(tmp_path)
    assert prompts(session) == [640, 800]


def test_unreadable_recording_does_not_hide_its_conversion(tmp_path: Path) -> None:
    directory = trial(tmp_path / "job")
    converted(directory / "agent" / "trajectory.json")
    path = recorded_in(directory / "agent")
    # As after the agent's timeout.
    path.write_bytes(path.read_bytes()[:-40])
    unread: list[TraceError] = []
    (session,) = read_sessions(tmp_path, on_unread=unread.append)
    assert (prompts(session), len(unread)) == ([600, 640], 1)
    skipped: list[TraceError] = []
    (session,) = read_sessions(tmp_path, on_skipped=skipped.append)
    assert (prompts(session), len(skipped)) == ([640], 1)
    path.write_text("not JSON")
    (session,) = read_sessions(tmp_path, on_unread=unread.append)
    assert (prompts(session), len(unread)) == ([600, 640], 2)


def test_only_harbors_own_files_are_not_traces(tmp_path: Path) -> None:
    directory = trial(tmp_path / "job")
    path = converted(directory / "agent" / "trajectory.json")
    alike = converted(tmp_path / "other" / "config.json", "c")
    unlike = write(tmp_path / "other" / "agent" / "x.json", {"a": 1})
    assert trace_files(tmp_path) == (path, unlike, alike)
    with pytest.raises(TraceError, match="unknown layout"):
        list(read_sessions(directory / "config.json"))


@pytest.mark.parametrize("damage", [b"", b"[1]", b"{", b"\xff", b'{"trial_name": 1}'])
def test_unreadable_descriptions_are_not_harbors(tmp_path: Path, damage: bytes) -> None:
    directory = trial(tmp_path / "job")
    for name in ("config.json", "result.json"):
        (directory / name).write_bytes(damage)
    converted(directory / "agent" / "trajectory.json")
    assert len(trace_files(tmp_path)) == 5
