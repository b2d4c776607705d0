"""Memory that a host tier may take of the machine, the container, shared memory.

The kernel kills a process that exceeds its cgroup's limit without a message, perhaps hours after
the start. So the start compares the figures.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from holdfast.errors import ConfigError

__all__ = ["Bound", "check_fits", "memory_bounds", "shared_memory_bound"]

_GIB: Final = 1 << 30
_SHARED_MEMORY: Final = Path("/dev/shm")
_OWN_CGROUPS: Final = Path("/proc/self/cgroup")
_MOUNTS: Final = Path("/proc/self/mountinfo")
# Files with the limit and the usage, and statistics of the memory that the kernel can reclaim.
_V2: Final = ("memory.max", "memory.current", ("inactive_file", "active_file"))
_V1: Final = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)


@dataclass(frozen=True, slots=True)
class Bound:
    """Free memory within one limit.

    Attributes:
        name: The limit's name in messages.
        num_bytes: Free bytes (>= 0).
        hint: What to do if that is too little.
    """

    name: str
    num_bytes: int
    hint: str


def check_fits(wanted: str, num_bytes: int, bounds: Iterator[Bound]) -> None:
    """Check that an amount of memory is free within every bound.

    Args:
        wanted: What takes the memory, with its figures, for the message.
        num_bytes: The amount (bytes).
        bounds: All bounds that apply.

    Raises:
        ConfigError: One of the bounds has less free.
    """
    for bound in bounds:
        if num_bytes > bound.num_bytes:
            raise ConfigError(
                f"{wanted}, but {bound.name} has {bound.num_bytes / _GIB:.1f} GiB free",
                hint=bound.hint,
            )


def shared_memory_bound() -> Iterator[Bound]:
    """Free space of `/dev/shm`, if the machine has it."""
    if _SHARED_MEMORY.is_dir():
        yield Bound(
            str(_SHARED_MEMORY),
            shutil.disk_usage(_SHARED_MEMORY).free,
            "lower host_gib, or give the container more (docker --shm-size or --ipc=host)",
        )


def memory_bounds() -> Iterator[Bound]:
    """Free memory of the machine and of each cgroup of this process.

    File caches count as free.
    """
    yield Bound(
        "the machine's memory",
        psutil.virtual_memory().available,
        "lower host_gib, or end other processes that take memory",
    )
    for directory, (limit_file, usage_file, freeable) in _cgroups():
        limit = _number(directory / limit_file)
        usage = _number(directory / usage_file)
        if limit is None or usage is None:
            continue
        usage -= sum(_statistics(directory / "memory.stat").get(name, 0) for name in freeable)
        yield Bound(
            f"the container (cgroup {directory}, limit {limit / _GIB:.1f} GiB)",
            max(limit - max(usage, 0), 0),
            "lower host_gib, or give the container more memory (docker --memory, Kubernetes"
            " resources.limits.memory); the kernel kills a process that exceeds it",
        )


def _cgroups() -> Iterator[tuple[Path, tuple[str, str, tuple[str, str]]]]:
    """Directories and file names of this process's memory cgroups, innermost first."""
    own = dict(_own_paths())
    for controllers, root, mount in _mounts():
        is_v2 = not controllers
        path = own.get("" if is_v2 else "memory")
        if path is None or not (is_v2 or "memory" in controllers):
            continue
        # A container may see its own cgroup as the root of the mount.
        relative = os.path.relpath(path, root)
        directory = mount if relative.startswith("..") else mount / relative
        if not directory.is_dir():
            directory = mount
        names = _V2 if is_v2 else _V1
        yield directory, names
        while directory != mount:
            directory = directory.parent
            yield directory, names


def _own_paths() -> Iterator[tuple[str, str]]:
    """Controllers, "" for cgroup v2, and this process's path in their hierarchy."""
    for line in _lines(_OWN_CGROUPS):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(",") if path.startswith("/") else ():
            yield controller, path


def _mounts() -> Iterator[tuple[tuple[str, ...], str, Path]]:
    """Mounted hierarchies: controllers (none for v2), mounted path, mount point."""
    for line in _lines(_MOUNTS):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        controllers = () if kind[0] == "cgroup2" else tuple(kind[2].split(","))
        yield controllers, fields[3], Path(fields[4])


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    return []


def _number(path: Path) -> int | None:
    """The number in a cgroup's file; None for no limit, or no such file."""
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdecimal() else None


def _statistics(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
