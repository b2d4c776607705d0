"""The trace files of a directory, and what to call each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from holdfast.errors import TraceError
from holdfast.traces.formats import opencode
from holdfast.traces.formats.detection import SUFFIXES, UnknownLayoutError, reader_of
from holdfast.traces.formats.registry import READERS
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.harbor import HarborFiles
from holdfast.traces.storage import printable

__all__ = ["file_labels", "trace_files"]


def trace_files(path: Path) -> tuple[Path, ...]:
    """List the trace files at `path`, by name: itself, or those in a directory and below it.

    Leaves out files and directories whose names begin with a dot, files that are read with another
    one, and what clients and Harbor keep beside sessions.

    Raises:
        TraceError: Nothing is there, or no file has a suffix that Holdfast reads.
    """
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise TraceError(
                f"unknown file type; expected one of {', '.join(SUFFIXES)}",
                source=str(path),
                hint=opencode.hint_for(path),
            )
        return (path,)
    if not path.is_dir():
        raise TraceError("no such file or directory", source=str(path))
    harbor = HarborFiles()
    files = tuple(
        file
        for file in sorted(path.rglob("*"))
        if file.name.endswith(SUFFIXES)
        and not (
            _is_hidden(file.relative_to(path)) or any(reader.is_aside(file) for reader in READERS)
        )
        and file.is_file()
        and not _is_harbors(file, harbor)
    )
    if not files:
        raise TraceError(
            f"the directory has no trace file; expected {', '.join(SUFFIXES)}",
            source=str(path),
            hint=opencode.hint_for(path),
        )
    companions = {
        companion
        for reader in READERS
        for file in files
        for companion in reader.companions_of(file)
    }
    return tuple(file for file in files if file not in companions)


def _is_harbors(path: Path, harbor: HarborFiles) -> bool:
    """Whether Harbor keeps a file about a job, or an agent beside what it recorded in one."""
    if harbor.is_own(path):
        return True
    return harbor.agent_directory(path) is not None and _has_unknown_layout(path)


def _has_unknown_layout(path: Path) -> bool:
    """Whether a file is of no format, as one is that is empty or a JSON array."""
    file = TraceFile(str(path), path)
    try:
        _, first = next(file.lines(), (0, b""))
        if first.lstrip()[:1] in (b"", b"["):
            return True
        reader_of(file, path)
    except UnknownLayoutError:
        return True
    except TraceError:
        # Told when the file's turn comes.
        return False
    return False


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def file_labels(files: Sequence[Path]) -> dict[Path, str]:
    """What to call each file: its name, behind as many directories as tell it from others; pure."""
    labels: dict[Path, str] = {}
    waiting = set(files)
    depth = 1
    while waiting:
        called = {
            path: printable("/".join((*path.parts[-depth:-1], path.name.partition(".")[0])))
            for path in waiting
        }
        num_called = Counter(called.values())
        labels |= {
            path: name
            for path, name in called.items()
            if num_called[name] == 1 or depth >= len(path.parts)
        }
        waiting -= labels.keys()
        depth += 1
    return labels
