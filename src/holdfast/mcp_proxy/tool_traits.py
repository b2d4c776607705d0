"""What a server's annotations say about its tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ToolTraits", "read_traits"]


@dataclass(frozen=True, slots=True)
class ToolTraits:
    """What calls of a tool may do.

    Attributes:
        is_read_only: Whether a call changes nothing.
        is_open_world: Whether its answers depend on more than the server's own data and the files
            that its arguments name; None where the server does not say.
        is_idempotent: Whether nothing is known against calling it twice.
    """

    is_read_only: bool = False
    is_open_world: bool | None = None
    is_idempotent: bool = True


def read_traits(result: Mapping[str, Any]) -> dict[str, ToolTraits]:
    """Traits by tool from a result of `tools/list`. Pure.

    What is malformed is left out. MCP's default for a missing `readOnlyHint` is false. A missing
    `openWorldHint` stays open here, as servers of files rarely set it. `idempotentHint` counts only
    where it is false: MCP gives it no meaning for read-only tools.
    """
    return dict(_traits(result.get("tools")))


def _traits(tools: object) -> Iterator[tuple[str, ToolTraits]]:
    for tool in tools if isinstance(tools, list) else ():
        if not isinstance(tool, Mapping) or not isinstance(tool.get("name"), str):
            continue
        hints = tool.get("annotations")
        hints = hints if isinstance(hints, Mapping) else {}
        is_open = hints.get("openWorldHint")
        yield (
            tool["name"],
            ToolTraits(
                is_read_only=hints.get("readOnlyHint") is True,
                is_open_world=is_open if isinstance(is_open, bool) else None,
                is_idempotent=hints.get("idempotentHint") is not False,
            ),
        )
