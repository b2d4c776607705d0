"""API keys of the gateway, and the tenant of each."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final

from holdfast.errors import ConfigError

__all__ = ["ApiKeys"]

_LEAST_KEY_CHARS: Final = 16
_TENANT: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")  # begins cache_salt, which takes few others


class ApiKeys:
    """Finds the tenant of a request by its key; without any keys every request passes.

    Args:
        tenants: Tenant by key.
    """

    def __init__(self, tenants: Mapping[str, str]) -> None:
        self._tenants = [(_digest(key), tenant) for key, tenant in tenants.items()]

    def __bool__(self) -> bool:
        """Whether keys are required."""
        return bool(self._tenants)

    @classmethod
    def parse(cls, text: str, source: str) -> ApiKeys:
        """Read lines of `KEY TENANT`. Pure.

        Blank lines and those that begin with # are skipped.

        Raises:
            ConfigError: A line is not of that form, a key is short or occurs twice, a tenant
                has characters that engines refuse.
        """
        tenants: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), 1):
            parts = line.split()
            if not parts or parts[0].startswith("#"):
                continue
            where = f"{source}, line {number}"
            if len(parts) != 2:
                raise ConfigError(f"{where}: expected a key and a tenant, separated by a blank")
            key, tenant = parts
            if not _TENANT.fullmatch(tenant):
                raise ConfigError(
                    f"{where}: tenant {tenant} is no name of at most 64 letters, digits, '.', '_' "
                    "and '-'"
                )
            if len(key) < _LEAST_KEY_CHARS:
                raise ConfigError(f"{where}: the key is shorter than {_LEAST_KEY_CHARS} characters")
            if key in tenants:
                raise ConfigError(f"{where}: the key occurs twice")
            tenants[key] = tenant
        if not tenants:
            raise ConfigError(f"{source}: no key in it", hint="a line for each: KEY TENANT")
        return cls(tenants)

    def tenant_of(self, headers: Mapping[str, str]) -> str | None:
        """Return the tenant of a request, None if its key is missing or wrong. Pure.

        Args:
            headers: By any case; the key is a bearer token, `x-api-key` or `x-goog-api-key`.
        """
        if not self._tenants:
            return ""
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        key = (
            token.strip()
            if scheme.lower() == "bearer"
            else headers.get("x-api-key", headers.get("x-goog-api-key", ""))
        )
        digest = _digest(key)
        found = None
        for known, tenant in self._tenants:
            if hmac.compare_digest(known, digest):  # all of them: time tells nothing
                found = tenant
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
