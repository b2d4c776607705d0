"""Every exception that Holdfast raises on purpose.

HoldfastError
├── ConfigError      a setting is unknown, has the wrong type or is out of range
├── TraceError       a trace file cannot be read; has the file, and the line or field
├── PolicyError      a policy is unknown, or needs something that its host does not have
├── EndpointError    an engine's HTTP endpoint cannot be reached, or refuses a request
└── EngineError      an engine process did not start, or vLLM is missing or unsupported
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ConfigError",
    "EndpointError",
    "EngineError",
    "HoldfastError",
    "PolicyError",
    "TraceError",
]


class HoldfastError(Exception):
    """Base of all errors for the user; `hint` suggests what to try."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle an error by its state, as constructors differ."""
        return _restored, (type(self), self.args, self.__dict__.copy())


def _restored(
    kind: type[HoldfastError], args: tuple[Any, ...], state: dict[str, Any]
) -> HoldfastError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ConfigError(HoldfastError):
    """A setting is unknown, has the wrong type or is out of range."""


class TraceError(HoldfastError):
    """A trace cannot be read.

    Attributes:
        source: The file.
        where: Line or field in it, if known.
        message: What is wrong.
    """

    def __init__(
        self, message: str, *, source: str, where: str | None = None, hint: str | None = None
    ) -> None:
        location = source if where is None else f"{source}: {where}"
        super().__init__(f"{location}: {message}", hint=hint)
        self.message = message
        self.source = source
        self.where = where

    def read_as(self, format_name: str) -> TraceError:
        """The same error, with the format that the file was read as; pure."""
        note = f" (read as {format_name})"
        message = self.message.removesuffix(note) + note
        return TraceError(message, source=self.source, where=self.where, hint=self.hint)


class PolicyError(HoldfastError):
    """A policy is unknown, or needs something that its host does not have."""


class EndpointError(HoldfastError):
    """An engine's HTTP endpoint cannot be reached, or refuses a request."""


class EngineError(HoldfastError):
    """An engine process did not start, or vLLM is missing or unsupported."""
