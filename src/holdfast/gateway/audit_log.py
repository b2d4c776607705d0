"""The audit log: a line of JSON for each decision, without text of prompts."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from prometheus_client import Counter

from holdfast.core.identity import Identity
from holdfast.errors import ConfigError
from holdfast.policies.requests import ToolCall

__all__ = ["AuditLog"]

logger = logging.getLogger(__name__)

_MOST_NAME_CHARS: Final = 256


class AuditLog:
    """Appends to a file, which others may rename or cut off at any time.

    A line that cannot be written is counted, and logged once until one can be; requests go on.

    Args:
        path: The file; it is created if it is missing.

    Raises:
        ConfigError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lost: Counter | None = None
        self._is_failing = False
        self._is_torn = False
        try:
            self._file: BinaryIO | None = self._open()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error

    def count_in(self, lost: Counter) -> None:
        """Count lines that could not be written. Mutates."""
        self._lost = lost

    def write(
        self,
        identity: Identity,
        path: str,
        policy: str,
        rule: str,
        verdict: str,
        call: ToolCall | None = None,
    ) -> None:
        """Append a decision.

        Args:
            identity: Who is answered.
            path: The API's path.
            policy: What has decided; "" where none had an opinion.
            rule: Its rule.
            verdict: What it has decided.
            call: The tool call; None if the request itself is refused. Of its arguments only the
                SHA-256 is written.
        """
        record = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "tenant": identity.tenant,
            "session": identity.session_id,
            "agent": identity.agent_id,
            "path": path,
            "policy": policy,
            "rule": rule,
            "verdict": verdict,
        }
        if call is not None:
            arguments = call.arguments.encode("utf-8", "surrogatepass")
            record["tool"] = call.name[:_MOST_NAME_CHARS]
            record["arguments_sha256"] = sha256(arguments).hexdigest()
        self._append(json.dumps(record).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, line: bytes) -> None:
        try:
            if self._has_moved():
                self.close()
                self._file = self._open()
            assert self._file is not None
            text = b"\n" + line if self._is_torn else line  # after a part of a line
            written = self._file.write(text)
            self._is_torn = written != len(text)
            if self._is_torn:
                raise OSError(0, "only a part of a line fits")
        except OSError as error:
            if self._lost is not None:
                self._lost.inc()
            if not self._is_failing:
                logger.error(
                    "audit log %s cannot be written (%s); decisions are lost until it can",
                    self._path,
                    error.strerror,
                )
            self._is_failing = True
        else:
            self._is_failing = False

    def _open(self) -> BinaryIO:
        return self._path.open("ab", buffering=0)

    def _has_moved(self) -> bool:
        """Whether the path no longer names the open file."""
        if self._file is None:
            return True
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return True
