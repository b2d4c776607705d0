"""Addresses of engines, as operators write them."""

from __future__ import annotations

from urllib.parse import urlsplit

from holdfast.errors import ConfigError
from holdfast.gateway.engines import Engine

__all__ = ["engines_at"]


def engines_at(urls: tuple[str, ...]) -> list[Engine]:
    """The engines of some addresses, named by host and port. Pure.

    Raises:
        ConfigError: An address is none of an HTTP server, has a path, or occurs twice.
    """
    engines = [_engine_at(url) for url in urls]
    if len({engine.url for engine in engines}) < len(engines):
        raise ConfigError("engines: one address occurs twice")
    return engines


def _engine_at(url: str) -> Engine:
    try:
        parts = urlsplit(url)
        has_address = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_address = False
    if not has_address or parts.scheme not in ("http", "https") or parts.username:
        raise ConfigError(f"engine {url}: expected http://HOST:PORT")
    if parts.path.rstrip("/") not in ("", "/v1") or parts.query:
        raise ConfigError(f"engine {url}: expected an address without a path")
    return Engine(parts.netloc, f"{parts.scheme}://{parts.netloc}")
