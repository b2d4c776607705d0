"""What was learned about returns, kept in a file from one start of the engine to the next.

The file is one line of text, `holdfast-learned 1 crc32=XXXXXXXX`, and the model's bytes, which the
checksum covers. Files of versions before the checksum have the bytes alone and are still read.
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

from holdfast.predict.features import GapFeatures
from holdfast.predict.return_time import ReturnTimeModel
from holdfast.predict.session_speed import SpeedFactor

__all__ = ["LearnedFile", "NoLearnedFile", "SharedModel"]

logger = logging.getLogger(__name__)

_SAVE_INTERVAL_S: Final = 30.0
_CLOSE_TIMEOUT_S: Final = 10.0
_MAX_BYTES: Final = 16 << 20  # a model with all its tools and classes takes less than two
_HEADER: Final = b"holdfast-learned 1 crc32=%08x\n"
_HEADER_START: Final = _HEADER[: _HEADER.index(b"%")]
_HEADER_BYTES: Final = len(_HEADER % 0)
_HINT: Final = (
    "nothing learned is read or kept, requests are served as usual;"
    " set HOLDFAST_LEARNED_FILE to the name of a regular file, or to nothing"
)


class SharedModel(ReturnTimeModel):
    """A model that one thread may save while another one learns."""

    def __init__(self) -> None:
        super().__init__()
        self.num_changes = 0
        self._lock = threading.Lock()

    def observe(
        self,
        features: GapFeatures,
        gap_s: float,
        *,
        censored: bool = False,
        speed: SpeedFactor | None = None,
    ) -> None:
        """See `ReturnTimeModel`."""
        with self._lock:
            super().observe(features, gap_s, censored=censored, speed=speed)
            self.num_changes += 1

    def to_bytes(self) -> bytes:
        """See `ReturnTimeModel`."""
        with self._lock:
            return super().to_bytes()


class LearnedFile:
    """Loads and saves a model; trouble with the file is logged and never raised.

    The file is replaced as a whole, so that a reader, or an engine that dies while writing, never
    meets half of one. A file that is damaged is set aside as `NAME.damaged`. What is no regular
    file of a model's size is refused: it is neither read nor replaced.

    Args:
        path: The file; a link to it stays a link.
        rank: Number of the engine among those of one server. Each but the first has a file of its
            own, `NAME.RANK`, and begins with the first one's where there is none.
    """

    def __init__(self, path: Path, rank: int = 0) -> None:
        self._first = Path(os.path.realpath(path))
        self._path = Path(f"{self._first}.{rank}") if rank else self._first
        self._model = SharedModel()
        self._num_saved = 0
        self._stamp: tuple[int, int] | None = None  # of the file as we left it
        self._is_refused = False
        self._said: set[str] = set()
        self._writing = threading.Lock()
        # Signal handlers put into it, so it must be a queue that may be entered twice.
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    # Load.

    def load(self) -> SharedModel | None:
        """What was saved; None where there is nothing, or nothing of use."""
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
        """The model to learn with: what was saved, or a new one. It is what `keep` keeps."""
        self._model = self.load() or self._model
        if not self._is_refused and not _may_write_in(self._path.parent):
            self._say_once(
                f"learned_file {self._path} cannot be written: its directory does not allow it;"
                " what is learned now is lost when the engine ends, requests are served as usual"
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
                "%s is damaged (%s): return times are learned anew; the file is kept as %s",
                *(path, error, aside.name),
            )
            return None
        assert isinstance(model, SharedModel)
        return model

    # Save.

    def keep(self) -> None:
        """Save what `start` gave, from now on, whenever it has learned something.

        Every half minute, when the process is told to end, and in `close`. From the thread that
        signals reach, once their handlers stand; does nothing the second time.
        """
        if self._thread is not None:
            return
        self._thread = threading.Thread(
            target=self._save_often, name="holdfast-learned", daemon=True
        )
        self._thread.start()
        self._save_on_signals()

    def close(self) -> None:
        """Save for the last time; waits for at most ten seconds."""
        if self._thread is not None:
            self._wake.put(True)
            self._thread.join(_CLOSE_TIMEOUT_S)

    def save(self, model: ReturnTimeModel, *, in_haste: bool = False) -> None:
        """Save now; `in_haste` where the process may be killed before a disk has answered."""
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
                self._say_once(
                    f"{self._path} cannot be written ({error.strerror or error}): what was learned"
                    " since it was last saved is lost when the engine ends"
                )

    def _save_often(self) -> None:
        is_over = False
        while not is_over:
            is_told = True
            try:
                is_over = self._wake.get(timeout=_SAVE_INTERVAL_S)
            except queue.Empty:
                is_told = False
            try:
                self._save_changed(in_haste=is_told)
            except Exception:
                logger.exception("%s cannot be saved", self._path)
                return

    def _save_changed(self, *, in_haste: bool) -> None:
        num_changes = self._model.num_changes
        if num_changes != self._num_saved:
            self.save(self._model, in_haste=in_haste)
            self._num_saved = num_changes

    def _save_on_signals(self) -> None:
        """Have signals that end the process save first; what else they do stays.

        An engine's process is given little time after SIGTERM, and spends it on its workers.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        if not callable(signal.getsignal(signal.SIGTERM)):
            return  # whoever embeds the engine deals with signals
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
        """Whether what stands in the file's place is a file of ours, or nothing."""
        try:
            mode = self._path.stat().st_mode
        except OSError:
            return True  # writing says what is wrong
        if not stat.S_ISREG(mode):
            self._refuse(self._path, f"is {_kind(mode)}, not a regular file")
            return False
        if self._stamp is not None and _stamp_of(self._path) != self._stamp:
            self._say_once(
                f"{self._path} is written by something else as well, which loses what either has"
                " learned; give each server a learned_file of its own"
            )
        return True

    def _refuse(self, path: Path, why: str) -> None:
        self._is_refused = True
        self._say_once(f"learned_file {path} {why}: {_HINT}")

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning("%s", message)


class NoLearnedFile:
    """Stands in for `LearnedFile` where the operator named no file."""

    def start(self) -> ReturnTimeModel:
        """A new model."""
        return ReturnTimeModel()

    def keep(self) -> None:
        """Save nothing."""

    def close(self) -> None:
        """Save nothing."""


def _may_write_in(directory: Path) -> bool:
    """Whether files may be made in a directory, or in what it will be made in."""
    there = next((one for one in (directory, *directory.parents) if one.exists()), directory)
    return os.access(there, os.W_OK | os.X_OK)


def _read(path: Path) -> bytes:
    """The content of a regular file of bounded size; never waits for a writer.

    Raises:
        ValueError: It is something else, or larger.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise ValueError(f"is {_kind(mode)}, not a regular file")
    # Not to be opened by name again: what stands there may have changed.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError(f"is {_kind(mode)}, not a regular file")
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"is larger than any that Holdfast writes ({_MAX_BYTES >> 20} MiB)")
    return data


def _replace(path: Path, content: bytes, *, is_durable: bool) -> None:
    """Put a file with `content` in the place of `path`, whole or not at all.

    Unless it is durable a machine, not a process, that fails now may leave half of it.
    """
    # Always the same name, so that engines killed while writing leave one at most.
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
        ValueError: They are not those that the checksum was made of.
    """
    if not data.startswith(_HEADER_START):
        return data  # of a version that wrote no checksum, or not a model at all
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
