"""Which versions of vLLM are tested, and what is done on others.

On a tested version nothing is checked: the tests did. On any other, what Holdfast expects of vLLM's
code is compared with it before the engine is built. If all is there, Holdfast runs with a warning;
else it refuses to start, so that no engine dies of it under load.

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
    """The version of the vLLM installed here.

    Raises:
        EngineError: There is none, it does not import, or it is older than `OLDEST`.
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
    """Whether a version of vLLM is older; builds from a source tree are taken to be recent."""
    minor = _minor(version)
    return minor is not None and (0, 0) < minor < than


def is_tested(version: str) -> bool:
    """Whether Holdfast's tests run on a version of vLLM, or on a neighbour of its minor. Pure."""
    minor = _minor(version)
    return minor is not None and OLDEST_TESTED <= minor <= NEWEST_TESTED


def check_scheduler(version: str) -> None:
    """Make sure that Holdfast's scheduler can run in a version of vLLM; warns if it is not tested.

    Args:
        version: The version that is installed, as `engine_version` gives it.

    Raises:
        EngineError: vLLM lacks what the scheduler needs.
    """
    _compare(version, "the scheduler", "use a tested vLLM, or `vllm serve` without Holdfast")


def check_tiers(version: str, setting: str = "a tier") -> None:
    """Make sure that tiers can run in a version of vLLM; warns if it is not tested.

    Args:
        version: The version that is installed, as `engine_version` gives it.
        setting: What asks for tiers.

    Raises:
        EngineError: vLLM is older than the offloading that tiers need, or lacks what they need.
    """
    if is_older(version, OLDEST_WITH_TIERS):
        raise EngineError(
            f"{setting} needs vLLM {_text(OLDEST_WITH_TIERS)} or newer, this is {version}",
            hint="go without tiers, or upgrade vLLM",
        )
    _compare(version, "the tiers", "use a tested vLLM, or go without tiers")


@cache
def _compare(version: str, part: str, hint: str) -> None:
    if is_tested(version):
        return
    from holdfast.vllm.contract import SCHEDULER, TIERS, breaches, modules_of

    found = breaches(modules_of(TIERS if part == "the tiers" else SCHEDULER))
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise EngineError(
            f"vLLM {version} is not among the tested versions ({_tested()}), and {part} would "
            f"fail in it: {'; '.join(found[:_SHOWN])}{more}",
            hint=f"{hint}; {_INSTALL_TESTED}",
        )
    _logger.warning(
        "vLLM %s is not among the versions that Holdfast is tested with (%s). Its code has all that"
        " %s must find in it. If it misbehaves: %s",
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
