"""What was learned about returns, kept in a file from one start of the engine to the next."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
from pathlib import Path

import msgspec

from holdfast.predict.return_time import ReturnTimeModel

__all__ = ["LearnedFile"]

logger = logging.getLogger(__name__)

_SAVE_INTERVAL_S = 300.0


class LearnedFile:
    """Loads and saves a model; trouble with the file is logged and never raised.

    The file is replaced as a whole, so that a reader, or an engine that dies while writing, never
    meets half of one. A file that cannot be understood is set aside as `NAME.damaged`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved_at_s = float("-inf")
        self._writing = threading.Lock()
        self._has_failed = False

    def load(self) -> ReturnTimeModel | None:
        """What was saved; None where there is nothing, or nothing of use."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("%s cannot be read, learning starts anew: %s", self._path, error)
            return None
        try:
            return ReturnTimeModel.from_bytes(data)
        except (msgspec.MsgspecError, ValueError) as error:
            aside = self._path.with_name(self._path.name + ".damaged")
            with contextlib.suppress(OSError):
                self._path.replace(aside)
            logger.warning("%s is damaged, learning starts anew: %s", self._path, error)
            return None

    def save_if_due(self, model: ReturnTimeModel, now_s: float) -> None:
        """Save from a thread of its own if the last time is minutes ago."""
        if now_s - self._saved_at_s < _SAVE_INTERVAL_S:
            return
        self._saved_at_s = now_s
        data = model.to_bytes()
        threading.Thread(target=self._write, args=(data,), name="holdfast-learned").start()

    def save(self, model: ReturnTimeModel) -> None:
        """Save now."""
        self._write(model.to_bytes())

    def _write(self, data: bytes) -> None:
        with self._writing:
            temporary: Path | None = None
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                handle, name = tempfile.mkstemp(prefix=self._path.name, dir=self._path.parent)
                temporary = Path(name)
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                temporary.replace(self._path)
            except OSError as error:
                if temporary is not None:
                    temporary.unlink(missing_ok=True)
                if not self._has_failed:
                    logger.warning("%s cannot be written: %s", self._path, error)
                self._has_failed = True
