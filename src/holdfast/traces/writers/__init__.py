"""Writers: one module per trace format, and what they share."""

from __future__ import annotations

__all__: list[str] = []
