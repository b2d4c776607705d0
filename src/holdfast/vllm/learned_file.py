"""Saves what was learned in a file from one start of the engine to the next.

The file is one line of text, `holdfast-learned 1 crc32=XXXXXXXX`, and the model's bytes, which the
checksum covers. Files of older versions have only the bytes, and are still read.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import stat
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.predict.return_time import ReturnTimeModel
from holdfast.vllm.learned_model import SharedModel

__all__ = ["LearnedFile", "NoLearnedFile", "learned_file_of"]

logger = logging.getLogger(__name__)

_SAVE_INTERVAL_S: Final = 30.0
_CLOSE_TIMEOUT_S: Final = 10.0
_MAX_BYTES: Final = 16 << 20  # a model with all its tools and classes has less than 2 MiB
_HEADER: Final = b"holdfast-learned 1 crc32=%08x\n"
_HEADER_START: Final = _HEADER[: _HEADER.index(b"%")]
_HEADER_BYTES: Final = len(_HEADER % 0)
_HINT: Final = (
    "return times are neither loaded nor saved, requests are served as usual;"
    " set HOLDFAST_LEARNED_FILE to a regular file, or unset it"
)


class LearnedFile:
    """Loads and saves a model; logs errors of the file and never raises them.

    Each save replaces the whole file atomically, so neither a reader nor an engine that is killed
    leaves half of it. A damaged file is renamed to `NAME.damaged`. Anything but a regular file of a
    model's size is neither read nor replaced.

    Args:
        path: The file; a symbolic link to it stays one.
        rank: Number of the engine among those of one server. Each but the first has a file of its
            own, `NAME.RANK`, and starts with the first engine's file if its own is missing.
    """

    def __init__(self, path: Path, rank: int = 0) -> None:
        self._first = Path(os.path.realpath(path))
        self._path = Path(f"{self._first}.{rank}") if rank else self._first
        self._model = SharedModel()
        self._num_saved = 0
        self._stamp: tuple[int, int] | None = None  # of the file after our last read or write
        self._is_refused = False
        self._logged: set[str] = set()
        self._writing = threading.Lock()
        # A signal handler puts into it, so the queue must be re-entrant.
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    # Load.

    def load(self) -> SharedModel | None:
        """The saved model; None if there is none, or none that can be used."""
        for path in dict.fromkeys((self._path, self._first)):
            try:
                data = _read(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._refuse(path, f"cannot be read ({error.strerror or error})")
                return None
            except ValueError as error:
                self._refuse(path, str(error))
                return None
            if path == self._path:
                self._stamp = _stamp_of(path)
            return self._decoded(path, data)
        return None

    def start(self) -> SharedModel:
        """The saved model, or a new one; `keep` saves it. Mutates."""
        self._model = self.load() or self._model
        if not self._is_refused and not _may_write_in(self._path.parent):
            self._log_once(
                f"learned_file {self._path} cannot be written: its directory does not allow it;"
                " return times learned now are lost when the engine ends, requests are served as"
                " usual. Make the directory writable, or set another learned_file"
            )
        return self._model

    def _decoded(self, path: Path, data: bytes) -> SharedModel | None:
        try:
            model = SharedModel.from_bytes(_checked(data))
        except (msgspec.MsgspecError, ValueError) as error:
            aside = path.with_name(path.name + ".damaged")
            with contextlib.suppress(OSError):
                path.replace(aside)
            self._stamp = None
            logger.warning(
                "learned_file %s is damaged (%s): return times are learned anew, and the file is"
                " renamed to %s",
                *(path, error, aside.name),
            )
            return None
        return model

    # Save.

    def keep(self) -> None:
        """Start to save the model when it has learned. Mutates signal handlers.

        It saves every half minute, when the process gets SIGTERM or SIGINT, and in `close`. Call it
        from the main thread after others have set their signal handlers; later calls do nothing.
        """
        if self._thread is not None:
            return
        self._thread = threading.Thread(
            target=self._save_often, name="holdfast-learned", daemon=True
        )
        self._thread.start()
        self._save_on_signals()

    def close(self) -> None:
        """Save for the last time; waits at most ten seconds."""
        if self._thread is not None:
            self._wake.put(True)
            self._thread.join(_CLOSE_TIMEOUT_S)

    def save(self, model: ReturnTimeModel, *, in_haste: bool = False) -> None:
        """Save now; `in_haste` does not wait for the disk, as the process may soon end."""
        data = model.to_bytes()
        with self._writing:
            if self._is_refused or not self._may_replace():
                return
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                content = _HEADER % zlib.crc32(data) + data
                _replace(self._path, content, is_durable=not in_haste)
                self._stamp = _stamp_of(self._path)
            except OSError as error:
                self._log_once(
                    f"learned_file {self._path} cannot be written ({error.strerror or error}):"
                    " return times learned since the last save are lost when the engine ends; check"
                    " the disk and the file's permissions"
                )

    def _save_often(self) -> None:
        is_over = False
        while not is_over:
            is_woken = True
            try:
                is_over = self._wake.get(timeout=_SAVE_INTERVAL_S)
            except queue.Empty:
                is_woken = False
            try:
                self._save_changed(in_haste=is_woken)
            except Exception:
                logger.exception(
                    "learned_file %s is not saved any more; requests are served as usual",
                    self._path,
                )
                return

    def _save_changed(self, *, in_haste: bool) -> None:
        num_changes = self._model.num_changes
        if num_changes != self._num_saved:
            self.save(self._model, in_haste=in_haste)
            self._num_saved = num_changes

    def _save_on_signals(self) -> None:
        """Save on signals that end the process, then call their handlers. Mutates them.

        An engine's process has little time after SIGTERM, and spends it on its workers.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        if not callable(signal.getsignal(signal.SIGTERM)):
            return  # a program that embeds the engine handles signals
        for number in (signal.SIGTERM, signal.SIGINT):
            before = signal.getsignal(number)
            if callable(before):
                signal.signal(number, self._saving_first(before))

    def _saving_first(self, handler: Callable[[int, Any], Any]) -> Callable[[int, Any], Any]:
        def handle(number: int, frame: Any) -> Any:
            self._wake.put(False)
            return handler(number, frame)

        return handle

    def _may_replace(self) -> bool:
        """Whether the path has a regular file or nothing."""
        try:
            mode = self._path.stat().st_mode
        except OSError:
            return True  # the write reports the error
        if not stat.S_ISREG(mode):
            self._refuse(self._path, f"is {_kind(mode)}, not a regular file")
            return False
        if self._stamp is not None and _stamp_of(self._path) != self._stamp:
            self._log_once(
                f"another process writes learned_file {self._path} too, so each loses what the"
                " other has learned; give each server a learned_file of its own"
            )
        return True

    def _refuse(self, path: Path, reason: str) -> None:
        self._is_refused = True
        self._log_once(f"learned_file {path} {reason}: {_HINT}")

    def _log_once(self, message: str) -> None:
        if message not in self._logged:
            self._logged.add(message)
            logger.warning("%s", message)


class NoLearnedFile:
    """Stands in for `LearnedFile` where the operator named no file."""

    def start(self) -> SharedModel:
        """A new model."""
        return SharedModel()

    def keep(self) -> None:
        """Save nothing."""

    def close(self) -> None:
        """Save nothing."""


def learned_file_of(path: str | None, rank: int) -> LearnedFile | NoLearnedFile:
    """The file of an engine, if the operator names one."""
    return LearnedFile(Path(path), rank) if path else NoLearnedFile()


def _may_write_in(directory: Path) -> bool:
    """Whether a directory is writable, or the parent in which it will be made."""
    existing = next((one for one in (directory, *directory.parents) if one.exists()), directory)
    return os.access(existing, os.W_OK | os.X_OK)


def _read(path: Path) -> bytes:
    """The content of a regular file of bounded size; never waits for a writer.

    Raises:
        ValueError: It is not a regular file, or larger.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise ValueError(f"is {_kind(mode)}, not a regular file")
    # Check the opened file again: another may have replaced it.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError(f"is {_kind(mode)}, not a regular file")
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"is larger than {_MAX_BYTES >> 20} MiB, the most that Holdfast writes")
    return data


def _replace(path: Path, content: bytes, *, is_durable: bool) -> None:
    """Replace `path` by a file with `content` atomically.

    Unless it is durable, a crash of the machine may leave half of it; a crash of the process not.
    """
    # A fixed name, so that killed engines leave at most one such file.
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if is_durable:
                os.fsync(handle)
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _checked(data: bytes) -> bytes:
    """The model's bytes.

    Raises:
        ValueError: The checksum does not match.
    """
    if not data.startswith(_HEADER_START):
        return data  # of a version without a checksum, or not a model
    content = data[_HEADER_BYTES:]
    if data[:_HEADER_BYTES] != _HEADER % zlib.crc32(content):
        raise ValueError("its checksum does not match")
    return content


def _stamp_of(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
