"""Finds the trace files of a directory and gives each a label."""

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

_LOG = ".log"  # of a decision log; other logs in a directory are no traces


def trace_files(path: Path) -> tuple[Path, ...]:
    """List the trace files at `path`, a file or directory, by name.

    Leaves out files and directories whose names begin with a dot, files that are read with another
    one, and files without sessions that clients and Harbor write. A decision log may end in `.log`
    where it is given itself.

    Raises:
        TraceError: The path does not exist, or no file has a suffix that Holdfast reads.
    """
    if path.is_file():
        if not path.name.endswith((*SUFFIXES, _LOG)):
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
            _is_hidden(file.relative_to(path))
            or any(reader.is_auxiliary(file) for reader in READERS)
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
    """Whether a file of a Harbor job is Harbor's own or of no trace format."""
    if harbor.is_own(path):
        return True
    return harbor.agent_directory(path) is not None and _has_unknown_layout(path)


def _has_unknown_layout(path: Path) -> bool:
    """Whether a file is of no trace format; an empty file or a JSON array is of none."""
    file = TraceFile(str(path), path)
    try:
        _, first = next(file.lines(), (0, b""))
        if first.lstrip()[:1] in (b"", b"["):
            return True
        reader_of(file, path)
    except UnknownLayoutError:
        return True
    except TraceError:
        # Reported when the file is read.
        return False
    return False


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def file_labels(files: Sequence[Path]) -> dict[Path, str]:
    """Label each file by its name, with parent directories until it is unique; pure."""
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
