"""Settings of compaction as vLLM hands them to the connector.

Process: every.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from holdfast.errors import ConfigError

__all__ = ["CompactionOptions"]

_Amount = Annotated[float, Meta(gt=0)]


class CompactionOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same names as Holdfast's settings; see `HoldfastConfig`.

    Attributes:
        compact_dir: Directory of compacted sessions.
        compact_gib: Largest size of it (GiB); None for no bound.
        compact_share: Share of a session's tokens that stays (0 to 1).
        compact_method: What chooses them.
        compact_before_drop: Whether sessions are compacted unasked.
    """

    compact_dir: str
    compact_gib: _Amount | None = None
    compact_share: Annotated[float, Meta(gt=0, lt=1)] = 0.6
    compact_method: str = "keydiff"
    compact_before_drop: bool = False

    @classmethod
    def of(cls, extra: Mapping[str, Any]) -> CompactionOptions:
        """Options from `kv_connector_extra_config`; pure.

        Raises:
            ConfigError: One is missing, unknown or out of range.
        """
        try:
            return msgspec.convert(dict(extra), cls)
        except msgspec.ValidationError as error:
            raise ConfigError(f"kv_connector_extra_config: {error}") from error
