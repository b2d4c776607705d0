"""Explains what a gateway or an MCP proxy has counted."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.report.explanation import Cause, Explanation
from holdfast.report.remedies import REMEDIES, SENTENCES

__all__ = ["Actions", "explain_calls", "explain_changes"]

Actions = Mapping[str, Mapping[str, int]]
"""What policies did: counts by policy and action."""


def explain_changes(
    num_prompts: int, changes: Mapping[str, tuple[int, int]], actions: Actions
) -> Explanation:
    """Explain which prompts of a gateway changed, and which rules prevent that; pure.

    Args:
        num_prompts: Prompts sent (count).
        changes: Prompts that changed and tokens that they lost, by kind (counts).
        actions: What its policies did.
    """
    causes = [
        Cause(cause, num_changed, tokens, 0.0, SENTENCES[cause], REMEDIES[cause])
        for kind, (num_changed, tokens) in sorted(changes.items(), key=lambda item: -item[1][1])
        if (cause := f"mutated:{kind}") in SENTENCES
    ]
    num_changed = sum(cause.num_turns for cause in causes)
    lost = sum(cause.tokens for cause in causes)
    verdict = (
        f"{num_changed:,} of {num_prompts:,} prompts did not extend their session's last one, so"
        f" about {lost:,} tokens had to be computed again."
    )
    missed = {"mutated": lost} if lost else {}
    return _explanation(verdict, missed, causes, actions)


def explain_calls(
    num_calls: int, num_answered: int, saved_s: float, actions: Actions
) -> Explanation:
    """Explain what an MCP proxy has saved; pure.

    Args:
        num_calls: Tool calls of clients (count).
        num_answered: Those that another call's result answered (count).
        saved_s: What those took when they were made (s).
        actions: What its policies did.
    """
    verdict = (
        f"{num_answered:,} of {num_calls:,} tool calls had their result from an equal call before,"
        f" which had taken {saved_s:,.1f} s."
    )
    return _explanation(verdict, {}, [], actions)


def _explanation(
    verdict: str, missed: dict[str, int], causes: list[Cause], actions: Actions
) -> Explanation:
    return Explanation(
        *(verdict, None, None, 0, 0, missed, None, None, None, 0.0, 0, 0),
        causes=causes,
        sessions=[],
        actions={policy: dict(counts) for policy, counts in actions.items()},
    )
