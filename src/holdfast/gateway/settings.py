"""Limits and timeouts of the gateway."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GatewayLimits"]


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """What a client or an engine may ask of the gateway.

    Attributes:
        body_bytes: Longest request body, decompressed (bytes).
        nesting: Levels of objects and arrays in it (count).
        receive_s: Longest time to receive a request (s).
        connect_s: Longest wait for a connection to an engine (s).
        stall_s: Longest silence of an engine, also before its first token (s).
        probe_s: Time between probes of an engine (s).
        lease_s: Sessions idle for longer count as gone (s).
        max_wait_ratio: Longest time that a request is held, in units of the engine time of what it
            found ahead of it (> 0); None holds none.
    """

    body_bytes: int = 64 << 20
    nesting: int = 100
    receive_s: float = 60.0
    connect_s: float = 5.0
    stall_s: float = 1800.0
    probe_s: float = 5.0
    lease_s: float = 1800.0
    max_wait_ratio: float | None = 2.0
