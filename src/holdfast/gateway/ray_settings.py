"""Settings of the gateway on Ray Serve, as `serve run` gives them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from holdfast.bearer_token import TOKEN_VARIABLE, routes_token
from holdfast.errors import ConfigError
from holdfast.gateway.addresses import engines_at, readers_at
from holdfast.gateway.admin_access import AdminAccess
from holdfast.gateway.engines import Engine
from holdfast.gateway.event_reader import KvEventReader
from holdfast.gateway.policy_file import GatewayPolicies, read_policies
from holdfast.gateway.settings import GatewayLimits
from holdfast.gateway.tenants import ApiKeys
from holdfast.small_file import read_small_text

__all__ = ["RaySettings"]

_LISTS = ("engines", "kv_events")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class RaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the gateway on Ray Serve is told; files are read where its processes run.

    Attributes:
        engines: Addresses of the engines; at least one.
        replicas: Processes that pass requests (count).
        kv_events: ZMQ addresses as for `--kv-events`; several are separated by blanks.
        api_keys: File of clients' keys, as for `--api-keys`.
        open_to_all: Whether to serve without keys all who reach Serve's port.
        engine_key: File with the engines' key.
        policies: File of policies, as for `--policies`.
        admin_host: Where the owner listens for operators.
        admin_port: Its port; None for none.
        admin_token_file: File with the token that it requires.
        max_body_mib: Longest request body (MiB).
        session_lease_s: Sessions idle for longer count as gone (s).
        max_wait_ratio: Wait bound of held turns; 0 holds none.
    """

    engines: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    replicas: Annotated[int, msgspec.Meta(ge=1)] = 2
    kv_events: tuple[str, ...] = ()
    api_keys: str | None = None
    open_to_all: bool = False
    engine_key: str | None = None
    policies: str | None = None
    admin_host: str = "127.0.0.1"
    admin_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None
    admin_token_file: str | None = None
    max_body_mib: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64
    session_lease_s: Annotated[float, msgspec.Meta(ge=1.0)] = 1800.0
    max_wait_ratio: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] = 2.0

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> RaySettings:
        """Check the arguments of an application, and read the files that they name.

        Numbers may be text.

        Raises:
            ConfigError: One is unknown or wrong, or a file is.
        """
        given = dict(values)
        for name in _LISTS:
            if isinstance(text := given.get(name), str):
                given[name] = (
                    text.split() if name == "kv_events" else text.replace(",", " ").split()
                )
        try:
            settings = msgspec.convert(given, cls, strict=False)
        except msgspec.ValidationError as error:
            known = ", ".join(cls.__struct_fields__)
            raise ConfigError(f"gateway on Ray: {error}", hint=f"settings: {known}") from None
        settings.check()
        return settings

    def check(self) -> None:
        """Build everything once, to find what is wrong.

        Raises:
            ConfigError: Something is.
        """
        self.readers(self.known_engines())
        self.keys()
        self.engine_token()
        if self.admin_port is not None:
            self.admin_access()
        policies = self.read_policies()
        if policies.admission is not None and not self.max_wait_ratio:
            raise ConfigError(
                f"max_wait_ratio=0 holds no turn, so {policies.admission!r} would admit none"
            )
        if policies.requests and self.replicas > 1:
            names = ", ".join(policy.spec.name for policy in policies.requests)
            raise ConfigError(
                f"{names}: each replica would have its own account of tenants and sessions, and "
                f"there are {self.replicas}",
                hint="replicas=1, or one `holdfast gateway`; policies of routing and admission and "
                "the table fairness decide for all replicas",
            )

    def known_engines(self) -> list[Engine]:
        """The engines, new ones at each call."""
        return engines_at(self.engines)

    def readers(self, engines: list[Engine]) -> list[KvEventReader]:
        """The readers of their KV events. Mutates the engines."""
        return readers_at(self.kv_events, engines)

    def keys(self) -> ApiKeys:
        """The clients' keys."""
        if self.api_keys is None:
            if not self.open_to_all:
                raise ConfigError(
                    "without api_keys everyone who reaches Serve's port is served",
                    hint="give api_keys=FILE, or open_to_all=true",
                )
            return ApiKeys({})
        return ApiKeys.parse(_text(self.api_keys), self.api_keys)

    def engine_token(self) -> str | None:
        """The engines' key; None passes the client's."""
        return None if self.engine_key is None else _text(self.engine_key).strip()

    def read_policies(self) -> GatewayPolicies:
        """The policies of the file."""
        return GatewayPolicies() if self.policies is None else read_policies(Path(self.policies))

    def admin_access(self) -> AdminAccess:
        """Who may read the owner's port."""
        token = routes_token(self.admin_token_file, os.environ)
        if token is None and self.admin_host not in _LOOPBACK:
            raise ConfigError(
                f"admin_host {self.admin_host} lets everyone read the admin port",
                hint=f"give admin_token_file=FILE as well, or set {TOKEN_VARIABLE}",
            )
        return AdminAccess(token)

    def limits(self) -> GatewayLimits:
        """What requests may ask. Pure."""
        return GatewayLimits(
            body_bytes=self.max_body_mib << 20,
            lease_s=self.session_lease_s,
            max_wait_ratio=self.max_wait_ratio or None,
        )


def _text(path: str) -> str:
    try:
        return read_small_text(Path(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
