"""One call, `bash` with `command` = `git status`, for each of vLLM's tool parsers."""

# ruff: noqa: RUF001 - the full-width bar is part of DeepSeek's special tokens

from __future__ import annotations

__all__ = ["CALLS", "UNNAMED"]

_ARGUMENTS = '{"command": "git status"}'
_JSON = f'{{"name": "bash", "arguments": {_ARGUMENTS}}}'
_LLAMA = f'{{"name": "bash", "parameters": {_ARGUMENTS}}}'
_PYTHON = '[bash(command="git status")]'
_COHERE = f'{{"tool_call_id": "0", "tool_name": "bash", "parameters": {_ARGUMENTS}}}'
_GLM = "bash<arg_key>command</arg_key><arg_value>git status</arg_value>"
_FUNCTION = "<function=bash>\n<parameter=command>\ngit status\n</parameter>\n</function>"
_INVOKE = '<invoke name="bash">\n<parameter name="command">git status</parameter>\n</invoke>'
_HERMES = f"I look.\n<tool_call>\n{_JSON}\n</tool_call>"
_QWEN_CODER = f"<tool_call>\n{_FUNCTION}\n</tool_call>"
_ATEM = (
    " to=self<|message|>I must look.<|eom|><|start|>assistant to=bash<|message|>"
    '<atem:function_calls>\n<atem:invoke name="bash">\n'
    '<atem:parameter name="command">git status</atem:parameter>\n</atem:invoke>\n'
    "</atem:function_calls>"
)


def _dsml(section: str, gap: str = "") -> str:
    ns = "｜DSML｜" + gap
    return (
        f'<{ns}{section}>\n<{ns}invoke name="bash">\n<{ns}parameter name="command" string="true">'
        f"git status</{ns}parameter>\n</{ns}invoke>\n</{ns}{section}>"
    )


_K3 = (
    "<|open|>response<|sep|>I look.<|close|>response<|sep|><|open|>tools<|sep|>"
    '<|open|>call tool="bash" index="1"<|sep|><|open|>argument key="command" type="string"<|sep|>'
    "git status<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>"
)


def _hunyuan(suffix: str) -> str:
    text = f"<tool_calls><tool_call>{_GLM}</tool_call></tool_calls>"
    return text.replace(">", f"{suffix}>")


def _plamo(kind: str, inner: str) -> str:
    return f"<|plamo:begin_{kind}:plamo|>{inner}<|plamo:end_{kind}:plamo|>"


_PLAMO_ARGUMENTS = f"<|plamo:constrain|>json<|plamo:msg|>{_ARGUMENTS}"
_PLAMO = _plamo(
    "tool_requests",
    _plamo(
        "tool_request", _plamo("tool_name", "bash") + _plamo("tool_arguments", _PLAMO_ARGUMENTS)
    ),
)
_MINIMAX_M3 = "".join(
    f"]<]minimax[>[{part}"
    for part in (
        "<tool_call>",
        '<invoke name="bash">',
        "<command>git status",
        "</command>",
        "</invoke>",
        "</tool_call>",
    )
)
_DEEPSEEK = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
_STEPFUN = (
    "<｜tool_calls_begin｜><｜tool_call_begin｜>function<｜tool_sep｜>"
    '<steptml:invoke name="bash"><steptml:parameter name="command">git status</steptml:parameter>'
    "</steptml:invoke><｜tool_call_end｜><｜tool_calls_end｜>"
)

# A call as a parser reads it, and the end of the message.
CALLS: dict[str, tuple[str, str]] = {
    "apertus": (f'<|tools_prefix|>[{{"bash": {_ARGUMENTS}}}]<|tools_suffix|>', "<|assistant_end|>"),
    "beam": (f"<call>bash({_ARGUMENTS})</call>", ""),
    "cohere_command3": (
        f"<|START_ACTION|>[\n    {_COHERE}\n]<|END_ACTION|>",
        "<|END_OF_TURN_TOKEN|>",
    ),
    "cohere_command4": (f"<|START_ACTION|>[{_COHERE}]<|END_ACTION|>", "<|END_OF_TURN_TOKEN|>"),
    "deepseek_v3": (
        _DEEPSEEK.format(f"function<｜tool▁sep｜>bash\n```json\n{_ARGUMENTS}\n```"),
        "<｜end▁of▁sentence｜>",
    ),
    "deepseek_v31": (_DEEPSEEK.format(f"bash<｜tool▁sep｜>{_ARGUMENTS}"), "<｜end▁of▁sentence｜>"),
    "deepseek_v32": (_dsml("function_calls"), "<｜end▁of▁sentence｜>"),
    "deepseek_v4": (_dsml("tool_calls"), "<｜end▁of▁sentence｜>"),
    "deepseek_v41": (_dsml("calls", " "), "<｜end▁of▁sentence｜>"),
    "dots": (f"<dots_function_call>\n{_INVOKE}\n</dots_function_call>", "<|endofassistant|>"),
    "ernie45": (f"<tool_call>\n{_JSON}\n</tool_call>\n", "</s>"),
    "functiongemma": (
        "<start_function_call>call:bash{command:<escape>git status<escape>}<end_function_call>",
        "<start_function_response>",
    ),
    "gemma4": ('<|tool_call>call:bash{command:<|"|>git status<|"|>}<tool_call|>', "<turn|>"),
    "gigachat3": (f"I look.<|message_sep|>\n\nfunction call<|role_sep|>\n{_JSON}", "</s>"),
    "glm45": (f"<tool_call>{_GLM}</tool_call>", "<|observation|>"),
    "glm47": (f"I look.<tool_call>{_GLM}</tool_call>", "<|observation|>"),
    "granite": (f"<|tool_call|>[{_JSON}]", "<|end_of_text|>"),
    "granite-20b-fc": (f"<function_call> {_JSON}", "<|endoftext|>"),
    "granite4": (f"<tool_call>\n{_JSON}\n</tool_call>", "<|end_of_text|>"),
    "hermes": (_HERMES, "<|im_end|>"),
    "hf": (f"<call>bash({_ARGUMENTS})</call>", ""),
    "hunyuan_a13b": (f"<tool_calls>[{_JSON}]</tool_calls>", "<|eos|>"),
    "hy_v3": (_hunyuan("").replace("bash<", "bash<tool_sep><"), "<｜hy_place▁holder▁no▁2｜>"),
    "hy_v4": (_hunyuan(":6124c78e"), "<｜hy_place▁holder▁no▁2｜>"),
    "inkling": (
        f'<|content_invoke_tool_json|>{{"name":"bash","args":{_ARGUMENTS}}}<|end_message|>',
        "<|content_model_end_sampling|>",
    ),
    "internlm": (f"<|action_start|><|plugin|>\n{_LLAMA}<|action_end|>\n", "<|im_end|>"),
    "jamba": (f"<tool_calls>[\n{_JSON}\n]</tool_calls>", "<|eom|>"),
    "k2_horizon": (
        f"<tool_calls><tool_call>{_GLM}</tool_call></tool_calls>".replace("</", "</ifm|")
        .replace("<t", "<ifm|t")
        .replace("<a", "<ifm|a"),
        "<|im_end|>",
    ),
    "kimi_k2": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.bash:0"
        f"<|tool_call_argument_begin|>{_ARGUMENTS}<|tool_call_end|><|tool_calls_section_end|>",
        "<|im_end|>",
    ),
    "kimi_k3": (_K3, "<|close|>message<|sep|><|end_of_msg|>"),
    "lfm2": (f"<|tool_call_start|>{_PYTHON}<|tool_call_end|>I check the repository.", "<|im_end|>"),
    "ling3": (f"<tool_call>{_GLM}</tool_call>", "<|role_end|>"),
    "llama3_json": (_LLAMA, "<|eot_id|>"),
    "llama4_json": (f"<|python_tag|>{_LLAMA}", "<|eom|>"),
    "llama4_pythonic": (f"<|python_start|>{_PYTHON}<|python_end|>", "<|eot|>"),
    "longcat": (f"<longcat_tool_call>{_JSON}</longcat_tool_call>", "</longcat_s>"),
    "mimo": (_QWEN_CODER, "<|im_end|>"),
    "minicpm5": (
        '<function name="bash"><param name="command">git status</param></function>',
        "<|im_end|>",
    ),
    "minimax_m2": (f"<minimax:tool_call>{_INVOKE}</minimax:tool_call>", "[e~["),
    "minimax_m3": (_MINIMAX_M3, "[e~["),
    "mistral": (f"[TOOL_CALLS]bash{_ARGUMENTS}", "</s>"),
    "muse": (_ATEM, "<|eot|>"),
    "muse_glimmer": (_ATEM, "<|eot|>"),
    "musespark1x": (_ATEM, "<|eot|>"),
    "olmo3": ('<function_calls>\nbash(command="git status")\n</function_calls>', "<|endoftext|>"),
    "openai": (
        "<|channel|>analysis<|message|>I must look.<|end|><|start|>assistant<|channel|>commentary "
        f"to=functions.bash <|constrain|>json<|message|>{_ARGUMENTS}",
        "<|call|>",
    ),
    "phi4_mini_json": (f"functools[{_JSON}]", "<|end|>"),
    "plamo3": (_PLAMO, "<|plamo:tag|>"),
    "poolside_v1": (f"<tool_call>{_GLM}</tool_call>", "</assistant>"),
    "pythonic": (_PYTHON, "<|eot_id|>"),
    "qwen3_coder": (_QWEN_CODER, "<|im_end|>"),
    "qwen3_json": (_HERMES, "<|im_end|>"),
    "qwen3_xml": (_QWEN_CODER, "<|im_end|>"),
    "seed_oss": (f"<seed:tool_call>\n{_FUNCTION}\n</seed:tool_call>", "<seed:eos>"),
    "step3": (_STEPFUN, "<|EOT|>"),
    "step3p5": (_QWEN_CODER, "<|im_end|>"),
    "step5": (_QWEN_CODER, "<|im_end|>"),
    "xlam": (f"[{_JSON}]", "<|im_end|>"),
}

# Their checkpoints define the syntax of a call; the sample is one possible syntax.
UNNAMED = frozenset({"beam", "hf"})
