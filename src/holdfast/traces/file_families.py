"""Files that are read together, as what is in them tells."""

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
    """The related of the files of each format, which are looked into when it is asked for."""

    def __init__(self, files: Sequence[Path], on_skipped: OnSkipped | None) -> None:
        # In the order of names, so that no seed decides which of two of one name is the first.
        self._files = sorted(files)
        self._on_skipped = on_skipped
        self._of: dict[str, RelatedFiles] = {}
        self._converted: dict[Path, str] = {}
        self._conversions = Conversions(self._files, HarborFiles(), self._is_recording)

    def of(self, path: Path, reader: TraceReader) -> tuple[Path, ...] | None:
        """The files that are read with one.

        None for one that is read with another, or whose session is there as recorded.
        """
        if reader.name not in self._of:
            links = dict(self._links(reader))
            self._of[reader.name] = RelatedFiles(links)
            self._converted.update(
                (at, one.converted_id) for at, one in links.items() if one.converted_id is not None
            )
        related = self._of[reader.name]
        converted_id = self._converted.get(path)
        if converted_id is not None and self._conversions.is_recorded(path, converted_id):
            return None
        return None if related.is_child(path) else related.descendants(path)

    def _is_recording(self, path: Path) -> bool:
        """Whether a file is a client's own and has a session that can be read."""
        file = TraceFile(str(path), path, self._on_skipped).silently()
        try:
            reader = reader_of(file, path)
            if reader.is_conversion or not reader.sees_text:
                return False
            reading = reader.read(file, interner=PrefixInterner(), scope=1, rng=None)
        except TraceError:
            return False
        return reading.num_sessions is None or reading.num_sessions > 0

    def _links(self, reader: TraceReader) -> Iterator[tuple[Path, FileLinks]]:
        if all(one.links_of is None for one in READERS if one.name == reader.name):
            return
        for path in self._files:
            file = TraceFile(str(path), path, self._on_skipped).silently()
            try:
                own = reader_of(file, path)
                links = own.links_of(file) if own.links_of and own.name == reader.name else None
            except TraceError:
                # Told when the file's turn comes.
                continue
            if links is not None:
                yield path, links
