"""Keys of agents: an explicit id, or the end of a fixed prefix."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.identity import Identity

__all__ = ["AgentKey"]


@dataclass(frozen=True, slots=True)
class AgentKey:
    """Identifies an agent within a tenant; hashable.

    An explicit id goes before the fixed prefix: it stays when the prompt of the agent is edited,
    and it is the same in all workflows of the tenant. Exactly one of the last two is set.

    Attributes:
        tenant: Name of the fairness domain; agents of different tenants are never the same.
        agent_id: The id that the client gives; None where it gives none.
        fingerprint: Prefix hash at which the fixed prefix (system prompt, tools) ends; it stands
            for the whole prefix. None for an agent with an id.
    """

    tenant: str
    agent_id: str | None = None
    fingerprint: bytes | None = None

    @classmethod
    def of(cls, identity: Identity, fingerprint: bytes | None) -> AgentKey | None:
        """The agent that sends a request; None if neither id nor prefix tells. Pure.

        Args:
            identity: Who sends it.
            fingerprint: Prefix hash of the last block of the fixed prefix; None if not known.
        """
        if identity.agent_id is not None:
            return cls(identity.tenant, agent_id=identity.agent_id)
        return None if fingerprint is None else cls(identity.tenant, fingerprint=fingerprint)

    @property
    def is_explicit(self) -> bool:
        """Whether the client names the agent. Pure."""
        return self.agent_id is not None
