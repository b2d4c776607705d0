"""The compacted prefixes of an engine, by the prefix hash of all their tokens.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.errors import EngineError
from holdfast.vllm.compaction.compaction_file import SUFFIX, Header, read_header

__all__ = ["Catalog", "Compaction"]

_NAME: Final = re.compile(rf"([0-9a-f]{{2}})+{re.escape(SUFFIX)}")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Compaction:
    """A compacted prefix that can be loaded.

    Attributes:
        key: Prefix hash of its last token.
        path: Its file.
        header: What the file says.
        num_bytes: Size of the file.
    """

    key: bytes
    path: Path
    header: Header
    num_bytes: int

    @property
    def num_dropped(self) -> int:
        """Tokens that it has no entries for (count)."""
        return self.header.num_tokens - self.header.num_kept


class Catalog:
    """Finds compactions, and removes the longest unused ones where they take too much.

    Args:
        directory: Directory of the engine's identity; what an earlier engine left there counts.
        max_bytes: Largest size of all files; None for no bound.

    Attributes:
        counts: Compactions `stored`, `removed` for space, and `lost` as their file is damaged.
        seconds: What the engine took to make those that were stored (s).
    """

    def __init__(self, directory: Path, max_bytes: int | None) -> None:
        self.counts: Counter[str] = Counter(stored=0, removed=0, lost=0)
        self.seconds = 0.0
        self._directory = directory
        self._max_bytes = max_bytes
        self._found: OrderedDict[bytes, Compaction] = OrderedDict()
        self._awaited: dict[bytes, Path] = {}
        self._num_bytes = 0
        self._pins: Counter[bytes] = Counter()
        for path in sorted(directory.glob(f"*{SUFFIX}"), key=lambda one: one.stat().st_mtime):
            if _NAME.fullmatch(path.name):
                self._take_in(bytes.fromhex(path.name.removesuffix(SUFFIX)), path)

    def __len__(self) -> int:
        """Compactions that can be loaded (count)."""
        return len(self._found)

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return self._num_bytes

    def path_of(self, key: bytes) -> Path:
        """The file for a prefix. Pure."""
        return self._directory / f"{key.hex()}{SUFFIX}"

    def await_file(self, key: bytes) -> None:
        """Expect that a worker writes the file for a prefix. Mutates."""
        self._awaited[key] = self.path_of(key)

    def has(self, key: bytes) -> bool:
        """Whether a prefix is compacted, or will be. Pure."""
        return key in self._found or key in self._awaited

    def deepest(self, hashes: Sequence[bytes]) -> Compaction | None:
        """The compaction of the longest prefix of a prompt, then the last used. Mutates.

        Args:
            hashes: Prefix hashes of the prompt's blocks.
        """
        self.look()
        # A prompt that returns is computed; if its file comes late or never, it may be made again.
        for key in [one for one in hashes if one in self._awaited] if self._awaited else ():
            del self._awaited[key]
        for key in reversed(hashes):
            found = self._found.get(key)
            if found is None:
                continue
            if not found.path.exists():
                self._forget(found, "lost")
                continue
            self._found.move_to_end(key)
            with contextlib.suppress(OSError):
                found.path.touch()  # an engine that restarts goes by these times
            return found
        return None

    def pin(self, key: bytes) -> None:
        """Keep a compaction, as a request or another compaction needs it. Mutates."""
        self._pins[key] += 1

    def unpin(self, key: bytes) -> None:
        """Undo one `pin`. Mutates."""
        self._pins[key] -= 1
        if not self._pins[key]:
            del self._pins[key]

    def look(self) -> None:
        """Take in files that workers have written since. Mutates."""
        for key, path in list(self._awaited.items()):
            if path.exists():
                del self._awaited[key]
                self._take_in(key, path)
                if key in self._found:
                    self.counts["stored"] += 1
                    self.seconds += self._found[key].header.seconds

    def clear(self) -> None:
        """Remove all compactions, as the model's weights changed. Mutates."""
        for found in list(self._found.values()):
            self._forget(found, "removed")
        self._awaited.clear()

    def _take_in(self, key: bytes, path: Path) -> None:
        try:
            found = Compaction(key, path, read_header(path), path.stat().st_size)
        except (EngineError, OSError) as error:
            _logger.warning("a compacted session is lost: %s", error)
            self.counts["lost"] += 1
            path.unlink(missing_ok=True)
            return
        self._found[key] = found
        self._num_bytes += found.num_bytes
        self._make_space()

    def _make_space(self) -> None:
        if self._max_bytes is None:
            return
        unused = [found for key, found in self._found.items() if key not in self._pins]
        for found in unused:
            if self._num_bytes <= self._max_bytes:
                return
            self._forget(found, "removed")

    def _forget(self, found: Compaction, outcome: str) -> None:
        found.path.unlink(missing_ok=True)
        del self._found[found.key]
        self._num_bytes -= found.num_bytes
        self.counts[outcome] += 1
