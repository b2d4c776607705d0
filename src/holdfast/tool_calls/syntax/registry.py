"""The table of tool-call syntaxes; another model family is another record."""

# ruff: noqa: RUF001 - the full-width bar is part of DeepSeek's special tokens

from __future__ import annotations

from holdfast.tool_calls.syntax.base import ToolSyntax
from holdfast.tool_calls.syntax.json_call import extract_bare_json, json_extractor
from holdfast.tool_calls.syntax.named_call import named_extractor
from holdfast.tool_calls.syntax.pythonic_call import pythonic_extractor
from holdfast.tool_calls.syntax.tagged_call import tagged_extractor

__all__ = ["SYNTAXES"]

_NAME = r"([A-Za-z_][\w.:/\-]{0,127})"


def _json(name: str, openers: tuple[str, ...], closers: tuple[str, ...]) -> ToolSyntax:
    return ToolSyntax(name, openers, closers, json_extractor(openers, closers))


def _named(
    name: str, markers: tuple[str, ...], head: str, closers: tuple[str, ...], trim: str = ""
) -> ToolSyntax:
    return ToolSyntax(name, markers, closers, named_extractor(head, closers, trim=trim))


def _tagged(
    name: str,
    markers: tuple[str, ...],
    patterns: tuple[str, str],
    parameter_closers: tuple[str, ...],
    closers: tuple[str, ...],
) -> ToolSyntax:
    extract = tagged_extractor(*patterns, parameter_closers, closers)
    return ToolSyntax(name, markers, closers, extract)


def _pythonic(name: str, opener: str, closers: tuple[str, ...], *, bracketed: bool) -> ToolSyntax:
    markers = (opener,) if opener else ()
    extract = pythonic_extractor(opener, bracketed=bracketed)
    return ToolSyntax(name, markers, closers, extract, reads_last_section=True)


_QUOTED_NAME = r"[\"']?([^\"'<>\s]{1,128})[\"']?"
_NAMED = rf"name\s{{0,4}}=\s{{0,4}}{_QUOTED_NAME}"
_ANY = r"[^<>]{0,128}"

# Patterns of tags are without the namespaces and suffixes that model families give them.
_SECTION_CLOSERS = ("</tool_call>", "</tool_calls>", "</function_calls>", "</calls>")

SYNTAXES: tuple[ToolSyntax, ...] = (
    # Hermes, Qwen 2.5 and 3, Granite 3.1 and later, ERNIE, xLAM and many others.
    _json("hermes", ("<tool_call>",), ("</tool_call>",)),
    _json("longcat", ("<longcat_tool_call>",), ("</longcat_tool_call>",)),
    _json("dots", ("<dots_function_call>",), ("</dots_function_call>",)),
    # Qwen3-Coder, Seed-OSS, Nemotron, MiMo, MiniCPM5, and Llama 3's own <function=name>{...}.
    _tagged(
        "function-tag",
        ("<function",),
        (
            rf"<function(?:=([^>\n]{{1,128}})|\s{{0,4}}{_NAMED}{_ANY})>",
            rf"<param(?:eter)?(?:=([^>\n]{{1,128}})|\s{{0,4}}{_NAMED}{_ANY})>",
        ),
        ("</parameter>", "</param>"),
        ("</function>", "</tool_call>"),
    ),
    # GLM 4.5 and later, Hunyuan, K2-Horizon; GLM ends a call with <|observation|>.
    _tagged(
        "glm",
        ("<tool_call>",),
        (
            rf"<tool_call>\s{{0,16}}{_NAME}\s{{0,16}}"
            r"(?:<tool_sep>|(?=<)|\Z)",
            r"<arg_key>([^<]{1,128})</arg_key>\s{0,16}"
            r"(?:<arg_type>[^<]{0,128}</arg_type>\s{0,16})?<arg_value>",
        ),
        ("</arg_value>",),
        ("</tool_call>", "</tool_calls>", "<|observation|>"),
    ),
    # DeepSeek V3.2 and V4, MiniMax, StepFun, Muse, dots.
    _tagged(
        "invoke",
        ("<invoke",),
        (rf"<invoke\s{{1,4}}{_NAMED}{_ANY}>", rf"<parameter\s{{1,4}}{_NAMED}{_ANY}>"),
        ("</parameter>",),
        ("</invoke>", *_SECTION_CLOSERS, "</dots_function_call>"),
    ),
    # Kimi K3, in angle brackets.
    _tagged(
        "call-tag",
        ("<call",),
        (
            rf"<call\s{_ANY}?tool\s{{0,4}}=\s{{0,4}}{_QUOTED_NAME}{_ANY}>",
            rf"<argument\s{_ANY}?key\s{{0,4}}=\s{{0,4}}{_QUOTED_NAME}{_ANY}>",
        ),
        ("</argument>",),
        ("</call>", "</tools>"),
    ),
    # Mistral: up to v7 an array, from v11 on a name before [ARGS] or the object itself.
    _json("mistral", ("[TOOL_CALLS]",), ("</s>",)),
    _named(
        "mistral-named",
        ("[TOOL_CALLS]",),
        rf"\[TOOL_CALLS\]\s{{0,16}}{_NAME}\s{{0,16}}(?:\[CALL_ID\][^\[\s]{{0,64}})?"
        r"(?:\[ARGS\]|(?=\{)|\Z)",
        ("</s>",),
    ),
    # DeepSeek V3 and R1 write a type, the name and a fenced block; V3.1 the name and bare JSON.
    _named(
        "deepseek",
        ("<｜tool▁call▁begin｜>",),
        r"<｜tool▁call▁begin｜>\s{0,8}(?:function<｜tool▁sep｜>([^\n`]{1,128})\n?(?:```(?:json)?\n?)?"
        r"|([^<\n]{1,128})(?:<｜tool▁sep｜>|\Z))",
        ("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
        trim="`\n",
    ),
    _named(
        "kimi",
        ("<|tool_call_begin|>",),
        r"<\|tool_call_begin\|>\s{0,8}([^\s:<]{1,128})(?::\d{1,9})?\s{0,8}"
        r"(?:<\|tool_call_argument_begin\|>|\Z)",
        ("<|tool_call_end|>", "<|tool_calls_section_end|>"),
    ),
    _named(
        "plamo",
        ("<|plamo:begin_tool_name:plamo|>",),
        r"<\|plamo:begin_tool_name:plamo\|>\s{0,8}([^\s<]{1,128})\s{0,8}"
        r"(?:<\|plamo:end_tool_name:plamo\|>)?(?:<\|plamo:begin_tool_arguments:plamo\|>)?"
        r"(?:<\|plamo:constrain\|>\w{0,16})?(?:<\|plamo:msg\|>)?",
        (
            "<|plamo:end_tool_arguments:plamo|>",
            "<|plamo:end_tool_request:plamo|>",
            "<|plamo:end_tool_requests:plamo|>",
        ),
    ),
    # Harmony (gpt-oss): a message with a recipient is a call. Muse writes <invoke> in it, and
    # names recipients that are not tools.
    _named(
        "harmony",
        ("<|channel|>", "<|message|>"),
        rf"(?<![^\s>])to=(?!(?:user|self|commentary|developer)\b){_NAME}[^{{}}]{{0,96}}?"
        r"(?:<\|message\|>(?!\s{0,16}<)|\Z)",
        ("<|call|>", "<|end|>", "<|start|>"),
    ),
    _named(
        "gemma",
        ("call:",),
        rf"<(?:\|tool_call|start_function_call)>call:{_NAME}(?=\{{|\Z)",
        ("<tool_call|>", "<end_function_call>"),
    ),
    # Llama 3: marked, or the whole answer is the call.
    _json("llama-json", ("<|python_tag|>",), ("<|eom_id|>",)),
    _json("granite", ("<|tool_call|>", "<function_call>"), ("</function_call>",)),
    _json("gigachat", ("<|function_call|>", "function call<|role_sep|>"), ()),
    _json("cohere", ("<|START_ACTION|>",), ("<|END_ACTION|>",)),
    _json("inkling", ("<|content_invoke_tool_json|>",), ()),
    _json("phi", ("functools",), ("<|/tool_call|>",)),
    _json("jamba", ("<tool_calls>",), ("</tool_calls>",)),
    _json("internlm", ("<|action_start|><|plugin|>",), ("<|action_end|>",)),
    _json("apertus", ("<|tools_prefix|>",), ("<|tools_suffix|>",)),
    _pythonic("llama4", "<|python_start|>", ("<|python_end|>",), bracketed=True),
    _pythonic("lfm2", "<|tool_call_start|>", ("<|tool_call_end|>",), bracketed=True),
    _pythonic("olmo", "<function_calls>", ("</function_calls>",), bracketed=False),
    ToolSyntax("bare-json", (), (), extract_bare_json),
    _pythonic("pythonic", "", (), bracketed=True),
)
