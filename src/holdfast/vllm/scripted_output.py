"""A logits processor that makes the engine answer with the request's own tokens.

For replays whose answers must be the recorded ones under any model: start vLLM with
`--logits-processors holdfast.vllm.scripted_output:ScriptedOutput` and send
`vllm_xargs: {"scripted_output": [token ids]}`. Never for production.

Process: worker. Checked on vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

__all__ = ["ScriptedOutput"]

_KEY = "scripted_output"


class ScriptedOutput(AdapterLogitsProcessor):  # type: ignore[misc]
    """Allows one token at each position of a request with a script."""

    def is_argmax_invariant(self) -> bool:
        """False: the likeliest token changes."""
        return False

    def new_req_logits_processor(self, params: Any) -> Any:
        """The processor of a request with a script; None for one without. Pure."""
        script = (params.extra_args or {}).get(_KEY)
        return _Script(script) if script else None


class _Script:
    def __init__(self, token_ids: Sequence[int]) -> None:
        self._token_ids = token_ids

    def __call__(self, output_ids: Sequence[int], logits: Any) -> Any:
        position = min(len(output_ids), len(self._token_ids) - 1)
        token_id = self._token_ids[position]
        logits[:] = float("-inf")
        logits[token_id] = 0.0
        return logits
