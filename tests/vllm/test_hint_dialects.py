"""The examples of docs/hints.md, through the middleware to vLLM's scheduler."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.core.hints import CARRIER_KEY, DIALECTS
from holdfast.core.request_body import RequestBody
from holdfast.core.session import Session, SessionState
from holdfast.vllm.client_body import hint_fields

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig

pytestmark = pytest.mark.engine

DOCUMENT = (Path(__file__).parents[2] / "docs" / "hints.md").read_text()
EXAMPLE = re.compile(r"```json\n(.*?)```\n\n→ (.*?)\n\n", re.DOTALL)
EXAMPLES = [(json.loads(body), " ".join(line.split())) for body, line in EXAMPLE.findall(DOCUMENT)]


def xargs_of(body: dict[str, Any]) -> dict[str, Any]:
    """What the engine gets of a body, as the middleware and vLLM hand it over."""
    parsed = RequestBody.parse(json.dumps(body).encode())
    assert parsed is not None
    carried = hint_fields(parsed)
    xargs = dict(body.get("vllm_xargs", {}))
    if carried:
        xargs[CARRIER_KEY] = carried
    if "kv_transfer_params" in body:
        xargs["kv_transfer_params"] = body["kv_transfer_params"]
    return xargs


def effects_of(rig: Rig, session: Session) -> dict[str, object]:
    """What a session's hints have changed, in the words of the document."""
    runtime, identity = rig.scheduler._runtime, session.identity
    retention = runtime.hints.retention
    found: dict[str, object] = {
        "session": identity.session_id,
        "parent": identity.parent_session_id,
        "agent": identity.agent_id,
        "workflow": identity.workflow_id,
        "gap": session.expected_gap_s,
        "priority": session.own_priority,
        "tool": session.gap.tool,
        "human": session.state is SessionState.HUMAN_AWAY,
        "ended": session.state is SessionState.CLOSED,
        "evicted first": session in retention._first,
        "prefetched": session in list(runtime.asked),
    }
    if session in retention:
        found["retained"] = session.retained_until_s - session.paused_at_s
    return {name: value for name, value in found.items() if value}


def words_of(line: str) -> dict[str, object]:
    """The effects that the line below an example names."""
    found: dict[str, object] = {}
    for part in line.split(", "):
        name, _, value = part.partition(" `")
        found[name] = value.rstrip("`") if value else True
    return found


@pytest.mark.parametrize(("body", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_example_of_the_document_has_its_effect(rig: Rig, body: dict[str, Any], line: str) -> None:
    rig.turn("1", "abcdef", xargs=xargs_of(body))
    (session,) = rig.sessions
    wanted = words_of(line)
    effects = effects_of(rig, session)
    assert effects.keys() == wanted.keys()
    for name, value in effects.items():
        assert value is True or wanted[name] in (value, f"{value:g}" if name in NUMBERS else None)
    outcomes = {name.rpartition("/")[2] for name in rig.metrics if "holdfast_hints/" in name}
    assert outcomes <= {"accepted", "clipped", "granted", "applied"}


NUMBERS = ("gap", "priority", "retained")


def test_every_dialect_has_an_example() -> None:
    bodies = [json.dumps({**body, **xargs_of(body)}) for body, _ in EXAMPLES]
    for dialect in DIALECTS:
        if dialect.sources == ("kv_hints",):
            continue  # the engine's own channel for the same envelope
        keys = [dialect.under] if dialect.under else [key for key, _, _ in dialect.keys]
        for key in keys:
            named = key.partition(".")[0]
            named = named.removeprefix("holdfast_")
            is_shown = any(named in body for body in bodies)
            assert is_shown or named in DOCUMENT, (dialect.name, key)


def test_number_of_examples_found() -> None:
    assert len(EXAMPLES) == DOCUMENT.count("```json")
