"""Explains which prompts of a gateway changed, and which rules prevent that."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.report.explanation import Cause, Explanation
from holdfast.report.remedies import REMEDIES, SENTENCES

__all__ = ["explain_changes"]


def explain_changes(num_prompts: int, changes: Mapping[str, tuple[int, int]]) -> Explanation:
    """Explain a gateway's counters of changed prompts; pure.

    Args:
        num_prompts: Prompts sent (count).
        changes: Prompts that changed and tokens that they lost, by kind (counts).
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
    return Explanation(
        *(verdict, None, None, 0, 0, missed, None, None, None, 0.0, 0, 0),
        causes=causes,
        sessions=[],
    )
