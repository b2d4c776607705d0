"""The bearer token of operators' routes, of an engine or of a gateway."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from holdfast.errors import ConfigError
from holdfast.small_file import read_small_text

__all__ = ["TOKEN_VARIABLE", "BearerToken", "routes_token"]

TOKEN_VARIABLE: Final = "HOLDFAST_ROUTES_TOKEN"
"""Variable with the token itself, in place of a file."""

_MIN_CHARS: Final = 16
_MAX_CHARS: Final = 1024


class BearerToken:
    """A token that is compared in constant time and never shown.

    Args:
        text: The token.
    """

    def __init__(self, text: str) -> None:
        self._value = text.encode("ascii")

    def __repr__(self) -> str:
        """Not the token."""
        return "BearerToken(...)"

    def admits(self, authorization: bytes | None) -> bool:
        """Whether an `Authorization` header has the token. Pure."""
        scheme, _, value = (authorization or b"").strip().partition(b" ")
        is_equal = hmac.compare_digest(value.strip(), self._value)
        return is_equal and scheme.lower() == b"bearer"


def routes_token(path: str | None, environ: Mapping[str, str]) -> BearerToken | None:
    """The token that the environment or a file has; None if the routes are off.

    Args:
        path: The token's file; None if there is none.
        environ: The variable in it takes precedence.

    Raises:
        ConfigError: The file cannot be read, or has no usable token. The message has no part of it.
    """
    text, source = environ.get(TOKEN_VARIABLE), f"the variable {TOKEN_VARIABLE}"
    if not text:
        if path is None:
            return None
        source = path
        try:
            text = read_small_text(Path(path))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: is not text") from error
    text = text.strip()
    if not _MIN_CHARS <= len(text) <= _MAX_CHARS or not (text.isascii() and text.isprintable()):
        raise ConfigError(
            f"{source}: expected a token of {_MIN_CHARS} to {_MAX_CHARS} ASCII characters",
            hint="openssl rand -hex 32 makes one",
        )
    return BearerToken(text)
