"""A sentence on each cause of misses, and one on what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from holdfast.core.prompt_change import CHANGES, ChangeNote

__all__ = ["DELAYS", "MORE_SPACE", "REMEDIES", "SENTENCES"]

SENTENCES: Final[Mapping[str, str]] = {
    "mutated": "the session's history was changed instead of extended",
    "answer_changed": "the answer came back with other tokens than were generated",
    "evicted": "the blocks were evicted for another session",
    "evicted:tool": "the blocks were evicted while the session was at a tool",
    "evicted:human": "the blocks were evicted while a human was away",
    "evicted:prefix": "the blocks were evicted although several sessions share them",
    "evicted:closed": "the blocks were evicted after the session seemed to have ended",
    "evicted:superseded": "the blocks were of an older history that came back",
    "not_admitted": "a turn with the same prefix had not computed it yet",
    "offload_declined": "a tier stored the blocks, and they were not loaded",
    "tier_load_failed": "a tier stored the blocks, and their load failed",
    "salt_changed": "the same prompt was computed under another cache_salt",
    "other_model": "the same prompt was computed for another adapter",
    "restart": "the cache was reset after the prompt was computed",
    "other_replica": "another engine of the gateway has the blocks",
    "below_block_size": "the tokens were not in a whole block",
    "never_seen": "the tokens are new",
    **{f"mutated:{kind}": note.sentence for kind, note in CHANGES.items()},
    **{f"answer_changed:{kind}": note.sentence for kind, note in CHANGES.items()},
}
"""What happened, by cause."""


def _remedy(note: ChangeNote) -> str:
    """What to do about a change, with the gateway's rule that prevents it."""
    if not note.rule:
        return note.advice
    return f"{note.advice} Or allow the gateway's rule {note.rule} (policy canonical-prompt)."


MORE_SPACE: Final = (
    "More sessions are live than the KV cache holds. Run fewer at once, give the cache more memory"
    " (--gpu-memory-utilization, --kv-cache-dtype fp8), or add a host tier (--kv-offloading-size)"
)
"""What several remedies begin with."""

REMEDIES: Final[Mapping[str, str]] = {
    "mutated": "Find what the client changes early in the prompt: a date or an id in the system"
    " prompt, the order of tools, reminders, compaction. Put what changes at the end.",
    "answer_changed": "The chat template or the client drops reasoning or rewrites answers. Keep"
    " answers as they were sent, or accept the cost of one answer a turn.",
    "evicted": f"{MORE_SPACE}.",
    "evicted:tool": f"{MORE_SPACE}; with stock vLLM, serve with Holdfast's scheduler.",
    "evicted:human": f"{MORE_SPACE}. A host tier is made for pauses as long as these.",
    "evicted:prefix": f"{MORE_SPACE}.",
    "evicted:closed": "Name sessions in requests (X-Session-ID), so that their ends are known.",
    "evicted:superseded": "The client returns to a history that it had left. Give each branch a"
    " session id of its own.",
    "not_admitted": "Requests with one prefix start at the same moment. Send one of them first.",
    "offload_declined": "Nothing, if the tier is slow: see holdfast_offload_is_paying and its log"
    " line for the figures. A faster link or larger blocks change the balance.",
    "tier_load_failed": "See the engine's log for the file or the disk that failed, and"
    " holdfast_pool_refused_blocks_total for how often and why.",
    "salt_changed": "Send one cache_salt for each tenant, and the same on every turn.",
    "other_model": "Blocks of different adapters are not shared. Keep a session on one model.",
    "restart": "Reset the prefix cache only when the model's weights have changed.",
    "other_replica": "The gateway moved the session, as its engine was down or busy. Give each"
    " engine fewer sessions, or look why it was down (holdfast_gateway_placements_total).",
    "below_block_size": "Nothing: the engine caches whole blocks.",
    "never_seen": "Nothing: new tokens must be computed.",
    **{f"mutated:{kind}": _remedy(note) for kind, note in CHANGES.items()},
    **{f"answer_changed:{kind}": _remedy(note) for kind, note in CHANGES.items()},
}
"""What to do, by cause."""

DELAYS: Final[Mapping[str, str]] = {
    "admitted": "Admitted turns waited for a step with tokens to spare:"
    " raise --max-num-batched-tokens, or run fewer sessions at once.",
    "slots": "As many requests ran as the engine allows: raise --max-num-seqs while the KV cache"
    " has free blocks.",
    "blocks": f"Turns needed more KV blocks than were free. {MORE_SPACE}.",
    "due": "Older turns, which had waited for their wait bound, went first."
    f" {MORE_SPACE}; a smaller max_wait_ratio makes waits more equal, and costs hits.",
    "priority": "More urgent requests went first, as their priorities ask.",
    "own_order": "Turns of the same tenant went first, as its own priorities ask.",
    "tenant": "Turns of tenants that were served less went first.",
    "session": "Turns of sessions of the same tenant that were served less went first.",
    "order": f"Turns that came before gathered blocks for themselves. {MORE_SPACE}.",
    "prefetch": "Their blocks were being loaded from a tier.",
    "engine": "The engine's own queue decided.",
}
"""What turns waited for, and what to do, by `DelayReason`."""
