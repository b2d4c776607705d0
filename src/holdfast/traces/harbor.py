"""Tells sessions in Harbor's job directories from its own files and conversions.

A job's directory has a directory for each trial. Its `agent` directory holds the agent's files and
Harbor's conversion of them to ATIF. All other files are Harbor's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

__all__ = ["Conversions", "HarborFiles"]

_AGENT: Final = "agent"
# Sets of fields; a description of Harbor's has all fields of one set.
_TRIAL: Final = (frozenset({"trial_name", "task"}), frozenset({"trial_name", "task_name"}))
_JOB: Final = (frozenset({"job_name"}), frozenset({"n_total_trials", "stats"}))
_OBJECT: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])
_ID_LENGTH: Final = 36


class HarborFiles:
    """Tells Harbor's own files from an agent's; reads each directory once."""

    def __init__(self) -> None:
        self._trials: dict[Path, Path | None] = {}
        self._jobs: dict[Path, bool] = {}

    def is_own(self, path: Path) -> bool:
        """Whether a file is Harbor's own about a job or a trial, not a session."""
        path = path.absolute()
        trial = self._trial(path.parent)
        if trial is not None:
            return self.agent_directory(path) is None
        if path.parent not in self._jobs:
            self._jobs[path.parent] = _is_described(path.parent, _JOB)
        return self._jobs[path.parent]

    def agent_directory(self, path: Path) -> Path | None:
        """The `agent` directory of a trial that contains the file; None outside of one."""
        path = path.absolute()
        trial = self._trial(path.parent)
        parts = () if trial is None else path.relative_to(trial).parts[:-1]
        if trial is None or _AGENT not in parts:
            return None
        return trial.joinpath(*parts[: parts.index(_AGENT) + 1])

    def _trial(self, directory: Path) -> Path | None:
        if directory not in self._trials:
            if _is_described(directory, _TRIAL):
                found: Path | None = directory
            else:
                found = None if directory == directory.parent else self._trial(directory.parent)
            self._trials[directory] = found
        return self._trials[directory]


class Conversions:
    """Finds ATIF trajectories whose session also has a client's own recording.

    Args:
        files: All files of the reading.
        is_recording: Whether a file is a client's own recording.
    """

    def __init__(
        self, files: Iterable[Path], harbor: HarborFiles, is_recording: Callable[[Path], bool]
    ) -> None:
        self._harbor = harbor
        self._is_recording = is_recording
        self._named: dict[str, Path] = {}
        self._beside: dict[Path, list[Path]] = {}
        for path in files:
            name = path.name.partition(".")[0]
            self._named.setdefault(name, path)
            self._named.setdefault(name[-_ID_LENGTH:], path)
            directory = harbor.agent_directory(path)
            if directory is not None:
                self._beside.setdefault(directory, []).append(path)

    def is_recorded(self, path: Path, session_id: str) -> bool:
        """Whether the client's own recording of a trajectory's session is among the files.

        It is when a recording is named after the session, or lies in the same trial's `agent`
        directory, which has one session.
        """
        named = self._named.get(session_id)
        directory = self._harbor.agent_directory(path)
        beside = self._beside.get(directory, []) if directory is not None else []
        others = [other for other in (named, *beside) if other not in (None, path)]
        return any(other is not None and self._is_recording(other) for other in others)


def _is_described(directory: Path, layouts: Iterable[frozenset[str]]) -> bool:
    for name in ("config.json", "result.json"):
        with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            fields = _OBJECT.decode((directory / name).read_bytes())
            if any(layout <= fields.keys() for layout in layouts):
                return True
    return False
