"""Free ports on loopback."""

from __future__ import annotations

import socket
from typing import Final

__all__ = ["HOST", "free_port"]

HOST: Final = "127.0.0.1"


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
