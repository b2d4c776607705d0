"""Checks that Holdfast can run on the installed version of vLLM.

A tested version needs no check. On any other, Holdfast compares its expectations of vLLM's code
with that code before the engine is built (`contract`). If they are met, it runs with a warning;
else it refuses to start, so that no engine fails under load.

Process: every.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
from functools import cache
from typing import Final

from holdfast.errors import EngineError

__all__ = [
    "INSTALL_HINT",
    "NEWEST_TESTED",
    "OLDEST",
    "OLDEST_TESTED",
    "OLDEST_WITH_TIERS",
    "check_compaction",
    "check_scheduler",
    "check_tiers",
    "engine_version",
    "is_older",
    "is_tested",
]

Minor = tuple[int, int]

OLDEST: Final[Minor] = (0, 23)
OLDEST_TESTED: Final[Minor] = (0, 28)
OLDEST_WITH_TIERS: Final[Minor] = (0, 32)
NEWEST_TESTED: Final[Minor] = (0, 33)

INSTALL_HINT: Final = (
    "with a GPU: pip install 'holdfast[vllm]'; without: pip install -r requirements/engine-cpu.txt"
)
_INSTALL_TESTED: Final = f"pip install 'vllm=={NEWEST_TESTED[0]}.{NEWEST_TESTED[1]}.*'"
_SHOWN: Final = 5

_logger = logging.getLogger(__name__)


def engine_version() -> str:
    """The installed version of vLLM.

    Raises:
        EngineError: vLLM is missing, does not import, or is older than `OLDEST`.
    """
    if importlib.util.find_spec("vllm") is None:
        raise EngineError("vLLM is not installed", hint=INSTALL_HINT)
    try:
        version = str(importlib.import_module("vllm.version").__version__)
    except Exception as error:
        raise EngineError(f"vLLM does not import: {error}", hint=INSTALL_HINT) from error
    if is_older(version, OLDEST):
        raise EngineError(
            f"vLLM {version} is too old: Holdfast needs {_text(OLDEST)} or newer, "
            f"and is tested with {_tested()}",
            hint=_INSTALL_TESTED,
        )
    return version


def is_older(version: str, than: Minor) -> bool:
    """Whether a version of vLLM is older; source builds count as recent. Pure."""
    minor = _minor(version)
    return minor is not None and (0, 0) < minor < than


def is_tested(version: str) -> bool:
    """Whether a version's minor is between the oldest and the newest tested one. Pure."""
    minor = _minor(version)
    return minor is not None and OLDEST_TESTED <= minor <= NEWEST_TESTED


def check_scheduler(version: str) -> None:
    """Check that Holdfast's scheduler can run on a version of vLLM; warn if untested.

    Args:
        version: The installed version; see `engine_version`.

    Raises:
        EngineError: vLLM lacks what the scheduler needs.
    """
    _compare(version, "the scheduler", "use a tested vLLM, or `vllm serve` without Holdfast")


def check_tiers(version: str, setting: str = "a tier") -> None:
    """Check that tiers can run on a version of vLLM; warn if it is not tested.

    Args:
        version: The installed version; see `engine_version`.
        setting: The setting that needs tiers, for the message.

    Raises:
        EngineError: vLLM is older than the offloading that tiers need, or lacks what they need.
    """
    if is_older(version, OLDEST_WITH_TIERS):
        raise EngineError(
            f"{setting} needs vLLM {_text(OLDEST_WITH_TIERS)} or newer, this is {version}",
            hint="go without tiers, or upgrade vLLM",
        )
    _compare(version, "the tiers", "use a tested vLLM, or go without tiers")


def check_compaction(version: str, *, has_tiers: bool = False) -> None:
    """Check that compaction can run on a version of vLLM; warn if untested.

    Args:
        version: The installed version; see `engine_version`.
        has_tiers: Whether there are tiers as well, which `check_tiers` checks by themselves.

    Raises:
        EngineError: vLLM is older than the oldest tested one, or lacks what compaction needs.
    """
    if is_older(version, OLDEST_TESTED):
        raise EngineError(
            f"compact_dir needs vLLM {_text(OLDEST_TESTED)} or newer, this is {version}",
            hint="unset compact_dir, or upgrade vLLM",
        )
    _compare(version, "compaction", "use a tested vLLM, or unset compact_dir")
    if has_tiers:
        _compare(version, "compaction with tiers", "use a tested vLLM, or unset compact_dir")


@cache
def _compare(version: str, part: str, hint: str) -> None:
    if is_tested(version):
        return
    from holdfast.vllm.contract import (
        COMPACTION,
        SCHEDULER,
        TIERED_COMPACTION,
        TIERS,
        breaches,
        modules_of,
    )

    packages = {
        "the tiers": TIERS,
        "compaction": COMPACTION,
        "compaction with tiers": TIERED_COMPACTION,
    }
    found = breaches(modules_of(packages.get(part, SCHEDULER)))
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise EngineError(
            f"vLLM {version} is not tested ({_tested()} are), and {part} would fail on it: "
            f"{'; '.join(found[:_SHOWN])}{more}",
            hint=f"{hint}; {_INSTALL_TESTED}",
        )
    _logger.warning(
        "vLLM %s is not tested with Holdfast (%s are). Its code has the names that %s needs, so"
        " Holdfast runs. If it misbehaves: %s",
        version,
        _tested(),
        part,
        _INSTALL_TESTED,
    )


def _minor(version: str) -> Minor | None:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return None if numbers is None else (int(numbers[1]), int(numbers[2]))


def _text(minor: Minor) -> str:
    return ".".join(map(str, minor))


def _tested() -> str:
    return f"{_text(OLDEST_TESTED)} to {_text(NEWEST_TESTED)}"
