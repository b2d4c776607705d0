"""One module per foreign trace format."""

from __future__ import annotations

__all__: list[str] = []
