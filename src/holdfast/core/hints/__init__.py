"""Hints that clients send about their sessions: dialects, readers, fields."""

from __future__ import annotations

from holdfast.core.hints.dialects import DIALECTS, Dialect
from holdfast.core.hints.fields import CARRIER_KEY, HINT_FIELDS, MAX_CARRIER_CHARS
from holdfast.core.hints.parse import parse_hints
from holdfast.core.hints.record import IDENTITY_FIELDS, CacheCommand, HintNote, HintOutcome, Hints

__all__ = [
    "CARRIER_KEY",
    "DIALECTS",
    "HINT_FIELDS",
    "IDENTITY_FIELDS",
    "MAX_CARRIER_CHARS",
    "CacheCommand",
    "Dialect",
    "HintNote",
    "HintOutcome",
    "Hints",
    "parse_hints",
]
