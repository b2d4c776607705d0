"""The token of engines' control routes, as commands take it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from holdfast.cli.options import FILE, option
from holdfast.errors import ConfigError

__all__ = ["TOKEN_FILE", "routes_token"]

TOKEN_FILE: Final = option(
    "--token-file",
    type=FILE,
    help="File with the token of the engines' control routes, which know the sessions, or of a "
    "gateway's admin port. "
    "HOLDFAST_ROUTES_TOKEN has the token itself.",
)
"""The option; its value is a path, or None."""


def routes_token(path: Path | None) -> str | None:
    """The token for the control routes; None without one.

    Args:
        path: Its file; None reads the environment.

    Raises:
        ConfigError: The file cannot be read.
    """
    from holdfast.bearer_token import TOKEN_VARIABLE
    from holdfast.small_file import read_small_text

    if path is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip() or None
    try:
        return read_small_text(path).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from error
