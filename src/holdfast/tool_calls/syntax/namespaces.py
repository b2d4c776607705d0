"""Removes the namespaces and suffixes that model families give to call tags."""

# ruff: noqa: RUF001, RUF003 - the full-width bar is part of DeepSeek's special tokens

from __future__ import annotations

import re

__all__ = ["without_namespaces"]

_MINIMAX_NAMESPACE = "]<]minimax[>["

# Kimi K3 writes elements with special tokens in place of angle brackets.
_XTML_ELEMENT = re.compile(r"<\|(open|close)\|>\s{0,4}([^<>]{0,300}?)\s{0,4}(?:<\|sep\|>|\Z)")

# `<ns:tag>`, `<ns|tag>`, DeepSeek's `<｜DSML｜tag>` and `<｜DSML｜ tag>`, Hunyuan's `<tag:0a1b2c>`.
_TAG = re.compile(
    r"<(/?)(?:(?:｜\w{1,16}｜|\w{1,24}[:|])\s?)?"
    r"(tool_calls?|toolcalls?|tools?|function_calls?|calls?|invoke|parameter|param"
    r"|tool_sep|arg_key|arg_type|arg_value|think(?:ing|_\w{1,16})?)"
    r"(?::[^\s<>]{1,64})?(?=[\s>]|\Z)"
)


def without_namespaces(text: str) -> str:
    """Return `text` with plain tags of calls and reasoning. Pure; linear time."""
    text = text.replace(_MINIMAX_NAMESPACE, "")
    if "<|open|>" in text or "<|close|>" in text:
        text = _XTML_ELEMENT.sub(_as_tag, text)
    return _TAG.sub(r"<\1\2", text)


def _as_tag(element: re.Match[str]) -> str:
    return f"<{'/' if element[1] == 'close' else ''}{element[2]}>"
