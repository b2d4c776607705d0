"""Where clients name their sessions: one row a client, in order of precedence.

A row's fields belong together, and ids of different rows are never mixed: a request's session and
parent come from the first row that names either. `core/client_identity.py` reads requests by it.

Left out on purpose:

- `prompt_cache_key` and `user` of unknown clients, `x-smg-routing-key`: several concurrent streams
  of one application or user share them, and an id counts for more than a prompt.
- `x-correlation-id`, except aiperf's: most senders make a new one for each request.
- `x-tenant-id` and other headers with a tenant: any client could name another's. A tenant is
  vLLM's `cache_salt`.
- An `x-session-id` that is AIBrix's, the base64 of an endpoint: all its sessions share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

__all__ = ["CLIENTS", "CLIENT_NAMES", "Client", "Field", "Named"]

Named = Literal[
    "session",
    "parent",
    "sub_agent",
    "parent_sub_agent",
    "agent",
    "workflow",
    "final",
    "expected_gap_s",
    "retain_s",
    "turn_end",
    "elsewhere_ratio",
]
"""What a field names.

`sub_agent` and `parent_sub_agent` are agents under the row's session; the other streams are named
by ids of their own.
"""


class Field(NamedTuple):
    """One field of a request.

    Attributes:
        named: What it names. Of several fields for one thing the first that is present counts.
        where: A header, or a part of the JSON body.
        field: The header's name in lower case, or the part's path with dots; a text on the way is
            read as JSON.
        pattern: If not empty, a regular expression whose first group is the id.
    """

    named: Named
    where: Literal["header", "body"]
    field: str
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """One client's fields.

    Attributes:
        name: Name of the client.
        version: A version that sends this; "" if taken from its documents.
        fields: Its fields.
        agent_of: What its header `user-agent` begins with; "" if it has no name of its own.
        is_required: Whether the row counts only with that user agent.
        always_has_tools: Whether its agents send tools with every call, so that a call without
            tools is a side call.
    """

    name: str
    version: str = ""
    fields: tuple[Field, ...] = ()
    agent_of: str = ""
    is_required: bool = False
    always_has_tools: bool = False


def _header(field: str, named: Named) -> Field:
    return Field(named, "header", field)


def _body(field: str, named: Named, pattern: str = "") -> Field:
    return Field(named, "body", field, pattern)


CLIENTS: Final = (
    # Holdfast's own words, which its client library and gateways send.
    Client(
        "Holdfast",
        "0.1",
        (
            _header("x-holdfast-session-id", "session"),
            _header("x-holdfast-parent-session-id", "parent"),
            _header("x-holdfast-agent-id", "agent"),
            _header("x-holdfast-workflow-id", "workflow"),
            _header("x-holdfast-session-final", "final"),
            _header("x-holdfast-expected-gap-s", "expected_gap_s"),
            _header("x-holdfast-retain-s", "retain_s"),
            _header("x-holdfast-turn-end", "turn_end"),
            _header("x-holdfast-elsewhere-ratio", "elsewhere_ratio"),
        ),
    ),
    Client(
        "Holdfast",
        "0.1",
        (
            _body("vllm_xargs.holdfast_session_id", "session"),
            _body("vllm_xargs.holdfast_parent_session_id", "parent"),
            _body("kv_transfer_params.holdfast.session_id", "session"),
            _body("kv_transfer_params.holdfast.parent_session_id", "parent"),
        ),
    ),
    # Bodies that an application writes for the engine.
    Client("vLLM, SGLang", "0.32, 0.5", (_body("session_id", "session"),)),
    Client(
        "ThunderAgent",
        "",
        (_body("program_id", "session"), _body("extra_body.program_id", "session")),
    ),
    Client("Continuum", "", (_body("job_id", "session"), _body("is_last_step", "final"))),
    Client(
        "Dynamo",
        "1.5",
        (
            # A session may have several trajectories; each is a stream.
            _body("nvext.agent_context.trajectory_id", "session"),
            _body("nvext.agent_context.session_id", "session"),
            _body("nvext.agent_context.parent_trajectory_id", "parent"),
            _body("nvext.agent_context.trajectory_final", "final"),
            _body("nvext.session_control.session_id", "session"),
        ),
    ),
    # Coding agents and their libraries.
    Client(
        "Claude Code",
        "2.1.332",
        (
            _header("x-claude-code-session-id", "session"),
            _header("x-claude-code-agent-id", "sub_agent"),
            _header("x-claude-code-parent-agent-id", "parent_sub_agent"),
        ),
        agent_of="claude-cli/",
        always_has_tools=True,
    ),
    Client(
        "Codex CLI",
        "0.171.0",
        (
            _header("thread-id", "session"),
            _header("x-codex-parent-thread-id", "parent"),
        ),
        agent_of="codex_",
        always_has_tools=True,
    ),
    # Of what follows, only the body reaches an engine through proxies that drop headers.
    Client(
        "Codex CLI",
        "0.171.0",
        (
            _body("client_metadata.thread_id", "session"),
            _body("client_metadata.x-codex-parent-thread-id", "parent"),
        ),
    ),
    Client(
        "OpenCode",
        "1.18.33",
        (_header("x-session-id", "session"), _header("x-parent-session-id", "parent")),
        agent_of="opencode/",
        is_required=True,
        always_has_tools=True,
    ),
    Client(
        "Dynamo",
        "1.5",
        (
            _header("x-dynamo-session-id", "session"),
            _header("x-dynamo-parent-session-id", "parent"),
            _header("x-dynamo-session-final", "final"),
            _header("x-dynamo-trajectory-id", "session"),  # before 1.5
        ),
    ),
    Client(
        "LiteLLM, OpenHands SDK",
        "1.58.2",
        (
            _header("x-litellm-session-id", "session"),
            _body("litellm_session_id", "session"),
        ),
    ),
    # Root's ids: sub-agents send them too. They count where nothing better is sent.
    Client(
        "Claude Code",
        "2.1.332",
        (
            _body("metadata.user_id.session_id", "session"),
            _body("metadata.user_id", "session", r"_session_([0-9A-Za-z-]{8,64})$"),  # before 2.1
        ),
        always_has_tools=True,
    ),
    Client("LiteLLM", "", (_body("metadata.session_id", "session"),)),
    Client(
        "Codex CLI",
        "0.171.0",
        (_header("session-id", "session"), _body("prompt_cache_key", "session")),
        agent_of="codex_",
        is_required=True,
        always_has_tools=True,
    ),
    # Headers that many senders share.
    Client(
        "aiperf",
        "",
        (_header("x-correlation-id", "session"),),
        agent_of="aiperf",
        is_required=True,
    ),
    Client(
        "vLLM, OpenCode",
        "0.32",
        (_header("x-session-id", "session"), _header("x-parent-session-id", "parent")),
    ),
    Client(
        "llm-d, aiperf",
        "",
        (_header("x-session-affinity", "session"), _header("x-parent-session-id", "parent")),
    ),
    # `session_id` is Codex's before 0.171, and pi's with the Responses API.
    Client("pi, llm-d", "0.73.1", (_header("session_id", "session"),)),
    Client("llm-d", "", (_header("session-id", "session"),)),
    # Clients without ids, known by name.
    Client("Qwen Code", "0.24.4", agent_of="QwenCode/", always_has_tools=True),
    Client("openai-agents", "0.24.0", agent_of="Agents/Python"),
    Client("Gemini CLI", "0.61.0", agent_of="GeminiCLI"),
)
"""In order of precedence: what is written for the engine, then what clients and proxies add."""

CLIENT_NAMES: Final = frozenset(client.name for client in CLIENTS)
"""All names of clients, so that reports by client are bounded."""
