"""The JSON document of runs: written whole or not at all, and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.core.results import SCHEMA, RunDocument
from holdfast.errors import HoldfastError
from holdfast.report.page import write_whole

__all__ = ["read_document", "write_document"]

_UNREADABLE: Final = "it is written by `--json` of holdfast demo, replay and simulate"


def write_document(path: Path, document: RunDocument) -> None:
    """Write `document` to `path`, replacing the file in one step.

    Raises:
        HoldfastError: The file cannot be written.
    """
    write_whole(path, document.to_json())


def read_document(path: Path) -> RunDocument:
    """Read a run document; keys that this version does not know are ignored.

    Raises:
        HoldfastError: The file cannot be read, or is not a run document.
    """
    try:
        content: Any = msgspec.json.decode(path.read_bytes())
        document = msgspec.convert(content, RunDocument)
    except OSError as error:
        raise HoldfastError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise HoldfastError(f"{path}: no run document: {error}", hint=_UNREADABLE) from error
    if document.schema != SCHEMA:
        raise HoldfastError(f"{path}: schema is {document.schema!r}, expected {SCHEMA!r}")
    return document
