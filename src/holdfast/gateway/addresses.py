"""Addresses of engines, as operators write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from urllib.parse import urlsplit

from holdfast.errors import ConfigError
from holdfast.gateway.engines import Engine
from holdfast.gateway.event_reader import KvEventReader
from holdfast.gateway.event_residency import EventResidency

__all__ = ["engines_at", "readers_at"]


def engines_at(urls: Sequence[str]) -> list[Engine]:
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


def readers_at(texts: Iterable[str], engines: Sequence[Engine]) -> list[KvEventReader]:
    """The readers of engines' KV events, `HOST:PORT=EVENTS[,REPLAY]`. Mutates engines.

    Raises:
        ConfigError: pyzmq is missing, an address is none of ZMQ's, or an engine is not known or
            occurs twice.
    """
    return [_reader_at(text, engines) for text in texts]


def _reader_at(text: str, engines: Sequence[Engine]) -> KvEventReader:
    if find_spec("zmq") is None:
        raise ConfigError("--kv-events needs pyzmq", hint="pip install 'holdfast[gateway]'")
    name, _, addresses = text.partition("=")
    endpoint, _, replay_endpoint = addresses.partition(",")
    given = [endpoint, *([replay_endpoint] if replay_endpoint else [])]
    if not all(address.startswith(("tcp://", "ipc://")) for address in given):
        raise ConfigError(f"--kv-events {text}: expected HOST:PORT=tcp://HOST:PORT")
    engine = next((each for each in engines if each.name == name), None)
    if engine is None or engine.events is not None:
        known = ", ".join(each.name for each in engines)
        raise ConfigError(f"--kv-events {text}: {name!r} is not one of {known}, or occurs twice")
    engine.events = EventResidency()
    return KvEventReader(name, endpoint, replay_endpoint or None, engine.events)
