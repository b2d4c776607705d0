"""Identity of KV blocks: everything that must be equal for a block to be usable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["PoolIdentity"]

_NAME_DIGITS: Final = 24


@dataclass(frozen=True, slots=True)
class PoolIdentity:
    """Everything that blocks depend on; only equal identities share blocks.

    Attributes:
        fields: JSON values by name; identities that differ in nothing here are the same.
    """

    fields: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of its directory: 24 hexadecimal digits of the fields' SHA-256."""
        canonical = json.dumps(dict(self.fields), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:_NAME_DIGITS]
