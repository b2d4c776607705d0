"""Names of streams that an agent started."""

from __future__ import annotations

from holdfast.core.session_id import parent_of, sub_agent_id


def test_ids_of_sub_agents_have_a_parent() -> None:
    assert parent_of(sub_agent_id("s", "a")) == "s"
    assert not any(map(parent_of, ("s", "/sub-agent/a", "s/sub-agent/", "sub-agent", "")))
