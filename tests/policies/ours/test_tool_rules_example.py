"""examples/tool-rules.toml, executed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.core.identity import Identity
from holdfast.core.request_body import RequestBody
from holdfast.gateway.policy_file import read_policies
from holdfast.policies.requests import Request, ToolCall

EXAMPLE = Path(__file__).parents[3] / "examples" / "tool-rules.toml"


@pytest.mark.parametrize(
    ("tenant", "tool", "arguments", "rule"),
    [
        ("", "Bash", {"command": "git status && git push origin main"}, "default"),
        ("", "Bash", {"command": "git push\n --force origin main"}, "no-force-push"),
        ("", "mcp__shell__bash", {"command": "git push origin +main"}, "no-force-push"),
        ("", "Bash", {"command": "rm -v -rf build"}, "delete-with-care"),
        ("", "Bash", {"command": "rm build/a.o"}, "default"),
        ("", "Read", {"file_path": "/home/a/.ssh/id_rsa"}, "no-secrets"),
        ("", "MultiEdit", {"edits": [{"path": ".env"}]}, "no-secrets"),
        ("", "Read", {"file_path": "src/environment.py"}, "default"),
        ("reviewers", "Read", {"file_path": "a.py"}, "reviewers-read"),
        ("reviewers", "Grep", {"pattern": "x"}, "reviewers-search"),
        ("reviewers", "Read", {"file_path": ".env"}, "no-secrets"),
        ("reviewers", "Write", {"file_path": "a.py"}, "reviewers-only-read"),
    ],
)
def test_the_example_decides(
    tenant: str, tool: str, arguments: dict[str, object], rule: str
) -> None:
    (policy,) = read_policies(EXAMPLE).requests
    who = Identity(session_id="s", tenant=tenant)
    request = Request("/v1/messages", RequestBody(b"{}", {}), who, 0.0)
    verdict = policy.judge(request, ToolCall(tool, json.dumps(arguments)))
    assert verdict is not None and verdict.rule == rule
