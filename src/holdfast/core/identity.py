"""Who sends a request, as far as its client says."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ANONYMOUS", "Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sends a request. Ids are unique within a tenant only.

    Attributes:
        session_id: The stream of turns; None goes by lineage.
        parent_session_id: The stream that started this one; None if no agent did.
        agent_id: The agent whose call this is; None if not named.
        workflow_id: The workflow that the agent is a step of; None if not named.
        is_side_call: Whether the client calls beside a session, for a title or a summary, say.
        client: Name of the client software, for reports; "" if not known.
        tenant: The fairness domain.
        adapter: Name of the adapter that is to answer; "" for the model alone.
    """

    session_id: str | None = None
    parent_session_id: str | None = None
    agent_id: str | None = None
    workflow_id: str | None = None
    is_side_call: bool = False
    client: str = ""
    tenant: str = ""
    adapter: str = ""

    @property
    def group(self) -> str | None:
        """The session id, unique among tenants; None without one. Pure."""
        return self._in_tenant(self.session_id)

    @property
    def parent_group(self) -> str | None:
        """The parent's session id, unique among tenants; None without one. Pure."""
        return self._in_tenant(self.parent_session_id)

    @property
    def has_parent(self) -> bool:
        """Whether another agent started this stream, as the client says. Pure."""
        return self.parent_session_id not in (None, self.session_id)

    def _in_tenant(self, name: str | None) -> str | None:
        return None if name is None else f"{self.tenant}\x00{name}"


ANONYMOUS = Identity()
"""A request that says nothing about its sender."""
