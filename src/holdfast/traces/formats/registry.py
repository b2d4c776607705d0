"""The registry of readers, one entry a format and kind of file."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Raw

from holdfast.traces.formats import (
    agentic_mooncake,
    atif,
    bailian,
    canonical,
    chatdev,
    claude_code,
    cline,
    codex,
    codex_bare,
    coding_agents,
    decisions,
    dynamo,
    gemini_cli,
    mini_swe_agent,
    mooncake,
    opencode,
    otel,
    pi,
    qwen_code,
    replay_records,
    tracelab,
    weka,
)
from holdfast.traces.formats.layout import Layout, missing_fields
from holdfast.traces.formats.reading import FileLinks, Reading
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.lineage import PrefixInterner

__all__ = ["READERS", "FileKind", "TraceReader", "closest_layout", "reader_for"]

FileKind = Literal["document", "lines"]
"""One JSON document, or one JSON object a line; the file's suffix decides."""


class _Read(Protocol):
    def __call__(
        self, file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None
    ) -> Reading: ...


def _never(_: Path) -> bool:
    return False


def _none(_: Path) -> Iterable[Path]:
    return ()


@dataclass(frozen=True, slots=True)
class TraceReader:
    """A reader of one format.

    Attributes:
        name: The format's name in `holdfast traces`.
        kind: The kind of its files.
        layouts: Fields that only its files have; one object of a file has all of one layout.
        read: Reads one file.
        companions_of: Lists files that belong to a file and are not traces themselves.
        links_of: Reads a file's links to other files; None for formats without links.
        is_auxiliary: Whether its client keeps a file beside its sessions that holds none.
        has_text: Whether its files can hold text.
        is_conversion: Whether its files may repeat sessions of a client's own recordings.
    """

    name: str
    kind: FileKind
    layouts: tuple[Layout, ...]
    read: _Read
    companions_of: Callable[[Path], Iterable[Path]] = _none
    links_of: Callable[[TraceFile], FileLinks | None] | None = None
    is_auxiliary: Callable[[Path], bool] = _never
    has_text: bool = False
    is_conversion: bool = False


READERS: tuple[TraceReader, ...] = (
    TraceReader("Holdfast", "lines", canonical.LAYOUTS, canonical.read_canonical, has_text=True),
    TraceReader("WEKA", "document", weka.LAYOUTS, weka.read_weka),
    TraceReader("WEKA", "lines", weka.LAYOUTS, weka.read_weka_lines),
    TraceReader(
        "coding agents",
        "lines",
        coding_agents.LAYOUTS,
        coding_agents.read_with_companion,
        coding_agents.companions_of,
    ),
    TraceReader("ChatDev", "lines", chatdev.LAYOUTS, chatdev.read_chatdev),
    TraceReader(
        "agentic Mooncake",
        "lines",
        agentic_mooncake.LAYOUTS,
        agentic_mooncake.read_agentic_mooncake,
    ),
    TraceReader("Mooncake", "lines", mooncake.LAYOUTS, mooncake.read_mooncake),
    TraceReader("Dynamo", "lines", dynamo.LAYOUTS, dynamo.read_dynamo),
    TraceReader("Bailian", "lines", bailian.LAYOUTS, bailian.read_bailian),
    TraceReader("TraceLab", "lines", tracelab.LAYOUTS, tracelab.read_tracelab),
    TraceReader("decision log", "lines", decisions.LAYOUTS, decisions.read_decisions),
    TraceReader(
        "replay records", "lines", replay_records.LAYOUTS, replay_records.read_replay_records
    ),
    TraceReader(
        "Claude Code",
        "lines",
        claude_code.LAYOUTS,
        claude_code.read_claude_code,
        claude_code.companions_of,
        claude_code.links_of,
        claude_code.is_auxiliary,
        has_text=True,
    ),
    TraceReader(
        "Codex",
        "lines",
        codex.LAYOUTS,
        codex.read_codex,
        links_of=codex.links_of,
        is_auxiliary=codex.is_auxiliary,
        has_text=True,
    ),
    TraceReader(
        "Codex", "lines", codex_bare.LINE_LAYOUTS, codex_bare.read_bare_codex, has_text=True
    ),
    TraceReader(
        "Codex",
        "document",
        codex_bare.DOCUMENT_LAYOUTS,
        codex_bare.read_codex_document,
        has_text=True,
    ),
    TraceReader(
        "Gemini CLI",
        "document",
        gemini_cli.LAYOUTS,
        gemini_cli.read_gemini_cli,
        links_of=gemini_cli.links_of,
        is_auxiliary=gemini_cli.is_auxiliary,
        has_text=True,
    ),
    TraceReader(
        "Gemini CLI",
        "lines",
        gemini_cli.LINE_LAYOUTS,
        gemini_cli.read_gemini_cli_lines,
        gemini_cli.companions_of,
        gemini_cli.links_of_lines,
        has_text=True,
    ),
    TraceReader(
        "Qwen Code",
        "lines",
        qwen_code.LAYOUTS,
        qwen_code.read_qwen_code,
        links_of=qwen_code.links_of,
        is_auxiliary=qwen_code.is_auxiliary,
        has_text=True,
    ),
    TraceReader(
        "pi",
        "lines",
        pi.LAYOUTS,
        pi.read_pi,
        links_of=pi.links_of,
        is_auxiliary=pi.is_auxiliary,
        has_text=True,
    ),
    TraceReader(
        "Cline",
        "document",
        cline.LAYOUTS,
        cline.read_cline,
        links_of=cline.links_of,
        is_auxiliary=cline.is_auxiliary,
        has_text=True,
    ),
    TraceReader(
        "mini-swe-agent",
        "document",
        mini_swe_agent.LAYOUTS,
        mini_swe_agent.read_mini_swe_agent,
        is_auxiliary=mini_swe_agent.is_auxiliary,
        has_text=True,
    ),
    TraceReader("OpenTelemetry", "document", otel.LAYOUTS, otel.read_otel, has_text=True),
    TraceReader("OpenTelemetry", "lines", otel.LINE_LAYOUTS, otel.read_otel_lines, has_text=True),
    TraceReader(
        "OpenCode",
        "document",
        opencode.LAYOUTS,
        opencode.read_opencode,
        links_of=opencode.links_of,
        is_auxiliary=opencode.is_auxiliary,
        has_text=True,
    ),
    TraceReader(
        "ATIF",
        "document",
        atif.LAYOUTS,
        atif.read_atif,
        links_of=atif.links_of,
        has_text=True,
        is_conversion=True,
    ),
)


def reader_for(kind: FileKind, record: Mapping[str, Raw]) -> TraceReader | None:
    """Return the reader with the largest layout that an object has; None if none has.

    Of equal layouts the earlier reader wins: it reads more of the file.
    """
    fitting = [
        (len(layout), -position)
        for position, reader in enumerate(READERS)
        if reader.kind == kind
        for layout in reader.layouts
        if not missing_fields(record, layout)
    ]
    return READERS[-max(fitting)[1]] if fitting else None


def closest_layout(
    kind: FileKind, record: Mapping[str, Raw]
) -> tuple[TraceReader, list[str]] | None:
    """Return the reader with the most complete layout, and the missing fields. Pure.

    None if the object has neither two fields nor half of any layout.
    """
    lacking = [
        (len(missing) / len(layout), position, len(layout), missing)
        for position, reader in enumerate(READERS)
        if reader.kind == kind
        for layout in reader.layouts
        for missing in [missing_fields(record, layout)]
    ]
    _, position, num_fields, missing = min(lacking)
    if num_fields - len(missing) < max(2, len(missing)):
        return None
    return READERS[position], missing
