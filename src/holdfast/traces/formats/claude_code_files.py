"""Claude Code's files: those with sessions, and those it keeps beside them.

The sub-agents of a session `ID.jsonl` have files in `ID/subagents`, those of a workflow in a
directory of their run below it, among files of the program's own.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.storage import COMPRESSIONS

__all__ = ["agent_kind", "companions_of", "is_auxiliary"]

_SUB_AGENTS: Final = "subagents"
_SUFFIXES = tuple(f".jsonl{compression}" for compression in COMPRESSIONS)
_OF_PROJECT = frozenset({"sessions-index.json", "bridge-pointer.json"})
_SESSION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class _Description(msgspec.Struct, rename="camel"):
    agent_type: str = ""


def companions_of(path: Path) -> tuple[Path, ...]:
    """Return the files of a session's sub-agents, in the directory of its name."""
    directory = path.with_name(path.name.partition(".")[0]) / _SUB_AGENTS
    return tuple(file for file in sorted(directory.rglob("agent-*")) if _is_sub_agents(file))


def is_auxiliary(path: Path) -> bool:
    """Whether Claude Code keeps a file beside its sessions that holds none."""
    if path.name in _OF_PROJECT or path.parent.name == "tool-results":
        return True
    directories = [parent.name for parent in path.parents]
    if _SUB_AGENTS in directories:
        if _is_sub_agents(path):
            return False
        is_journal = path.name.startswith("journal.") and "workflows" in directories
        if is_journal or path.name.endswith(".meta.json"):
            return True
    # These directories also remain after the session's own file is deleted.
    is_runs = path.parent.name == "workflows" and (path.parent.parent / _SUB_AGENTS).is_dir()
    return is_runs or any(_is_sessions(parent) for parent in path.parents)


def _is_sub_agents(path: Path) -> bool:
    return path.name.startswith("agent-") and path.name.endswith(_SUFFIXES)


def _is_sessions(directory: Path) -> bool:
    """Whether a directory belongs to a session with a file beside it."""
    if _SESSION_ID.fullmatch(directory.name) is None:
        return False
    return any(directory.with_name(f"{directory.name}{suffix}").is_file() for suffix in _SUFFIXES)


def agent_kind(path: Path) -> str:
    """Return a sub-agent's type from the description beside its file; "" if missing."""
    description = path.with_name(f"{path.name.partition('.')[0]}.meta.json")
    with suppress(TraceError):
        if description.is_file():
            return TraceFile(str(description), description).document(_Description).agent_type
    return ""
