"""Finds the files that belong to one session tree, from their contents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast.errors import TraceError
from holdfast.traces.formats.detection import reader_of
from holdfast.traces.formats.reading import FileLinks
from holdfast.traces.formats.registry import READERS, TraceReader
from holdfast.traces.formats.trace_file import OnSkipped, TraceFile
from holdfast.traces.harbor import Conversions, HarborFiles
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.related_files import RelatedFiles

__all__ = ["FileFamilies"]


class FileFamilies:
    """The related files of each format; opens the files of a format at its first use."""

    def __init__(self, files: Sequence[Path], on_skipped: OnSkipped | None) -> None:
        # Ordered by name, so that no seed decides which of two equal names comes first.
        self._files = sorted(files)
        self._on_skipped = on_skipped
        self._related: dict[str, RelatedFiles] = {}
        self._converted: dict[Path, str] = {}
        self._conversions = Conversions(self._files, HarborFiles(), self._is_recording)

    def of(self, path: Path, reader: TraceReader) -> tuple[Path, ...] | None:
        """The files that are read with `path`.

        None for a file that is read with another one, or that converts a session whose recording is
        among the files.
        """
        if reader.name not in self._related:
            links = dict(self._links(reader))
            self._related[reader.name] = RelatedFiles(links)
            self._converted.update(
                (at, one.converted_id) for at, one in links.items() if one.converted_id is not None
            )
        related = self._related[reader.name]
        converted_id = self._converted.get(path)
        if converted_id is not None and self._conversions.is_recorded(path, converted_id):
            return None
        return None if related.is_child(path) else related.descendants(path)

    def _is_recording(self, path: Path) -> bool:
        """Whether a file is a client's own recording with a readable session."""
        file = TraceFile(str(path), path, self._on_skipped).without_reports()
        try:
            reader = reader_of(file, path)
            if reader.is_conversion or not reader.has_text:
                return False
            reading = reader.read(file, interner=PrefixInterner(), scope=1, rng=None)
        except TraceError:
            return False
        return reading.num_sessions is None or reading.num_sessions > 0

    def _links(self, reader: TraceReader) -> Iterator[tuple[Path, FileLinks]]:
        if all(one.links_of is None for one in READERS if one.name == reader.name):
            return
        for path in self._files:
            file = TraceFile(str(path), path, self._on_skipped).without_reports()
            try:
                own = reader_of(file, path)
                links = own.links_of(file) if own.links_of and own.name == reader.name else None
            except TraceError:
                # Reported when the file is read.
                continue
            if links is not None:
                yield path, links
