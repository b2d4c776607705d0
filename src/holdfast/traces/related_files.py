"""Groups related files: a main agent's with those of its sub-agents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from holdfast.traces.formats.reading import FileLinks

__all__ = ["RelatedFiles"]


class RelatedFiles:
    """Trees of files, built from the links of each file.

    A file without a known parent is a root, and so is a second file of the same name. In a cycle
    the first file is the root.
    """

    def __init__(self, links: Mapping[Path, FileLinks]) -> None:
        named: dict[str, Path] = {}
        for path, one in links.items():
            named.setdefault(one.name, path)
        self._parents: dict[Path, Path] = {}
        self._children: dict[Path, list[Path]] = {}
        for path in named.values():
            parent = named.get(links[path].parent or "")
            if parent is not None:
                self._add(parent, path)
        for path in named.values():
            for name in links[path].children:
                if name in named:
                    self._add(path, named[name])

    def is_child(self, path: Path) -> bool:
        """Whether a file is read with its parent."""
        return path in self._parents

    def descendants(self, path: Path) -> tuple[Path, ...]:
        """The files below `path`, each after its parent; pure."""
        return tuple(self._descendants(path))

    def _descendants(self, path: Path) -> Iterator[Path]:
        waiting = list(reversed(self._children.get(path, ())))
        while waiting:
            child = waiting.pop()
            yield child
            waiting += reversed(self._children.get(child, ()))

    def _add(self, parent: Path, child: Path) -> None:
        if child in self._parents:
            return
        ancestor: Path | None = parent
        while ancestor is not None:
            if ancestor == child:
                return
            ancestor = self._parents.get(ancestor)
        self._parents[child] = parent
        self._children.setdefault(parent, []).append(child)
