"""Hints that clients send about their sessions: dialects, readers, fields."""

from __future__ import annotations

from holdfast.core.hints.fields import CARRIER_KEY, HINT_FIELDS, MAX_CARRIER_CHARS
from holdfast.core.hints.parse import DIALECTS, Dialect, Hints, parse_hints

__all__ = [
    "CARRIER_KEY",
    "DIALECTS",
    "HINT_FIELDS",
    "MAX_CARRIER_CHARS",
    "Dialect",
    "Hints",
    "parse_hints",
]
