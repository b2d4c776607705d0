"""Separates the markup of chat templates from the text of an answer.

Models end and frame their messages with special tokens and tags. The names of some show that they
only end a message; the meaning of all others is unknown.
"""

# ruff: noqa: RUF001, RUF003 - the full-width bar is part of DeepSeek's special tokens

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = [
    "MAX_AFTERWORD_CHARS",
    "NO_SPECIAL_TOKENS",
    "SpecialTokens",
    "as_plain_text",
    "is_answer",
    "message_start",
    "without_markup",
    "without_message_ends",
]


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The special tokens of a model's tokenizer.

    Attributes:
        ends: Those that end any message: end of sequence and padding.
        others: All others.
    """

    ends: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()

    def __contains__(self, token: object) -> bool:
        """Whether `token` is a special token. Pure."""
        return token in self.ends or token in self.others


NO_SPECIAL_TOKENS = SpecialTokens()

# Ends of messages that their names do not show.
_MESSAGE_ENDS = (
    "</s>",
    "</longcat_s>",
    "<eos>",
    "<seed:eos>",
    "[e~[",
    "<|return|>",
    "<|plamo:tag|>",
    "〈|EOS|〉",
    "<｜hy_place▁holder▁no▁2｜>",
)

# A token whose name consists of these words only begins, ends or frames a message.
_MESSAGE_WORDS = """
    begin start end close open stop of eos bos eot eom eod pad turn text message msg sentence
    utterance document assistant response user human system chatbot bot model role header id im
    token sep separator prompt content channel sampling think thinking thought reasoning final
    answer solution
"""
_MESSAGE_NAME = re.compile(f"(?:{'|'.join(_MESSAGE_WORDS.split())})+")

# Elements in which models wrap an answer, and HTML, in which answers are written.
_WRAPPERS = ("answer", "final_answer", "response", "message", "assistant", "solution", "analysis")
_HTML = """
    a abbr address area article aside audio b base bdi bdo blockquote body br button canvas caption
    cite code col colgroup center data datalist dd del details dfn dialog div dl dt em embed
    fieldset figcaption figure font footer form h1 h2 h3 h4 h5 h6 head header hgroup hr html i
    iframe img input ins kbd label legend li link main map mark math menu meta meter nav noscript
    object ol optgroup option output p picture pre progress q rp rt ruby s samp script section
    select slot small source span strike strong style sub summary sup svg table tbody td template
    textarea tfoot th thead time title tr track tt u ul var video wbr
"""
_ORDINARY_ELEMENTS = frozenset((*_WRAPPERS, *_HTML.split()))

# Special tokens by their form: <|x|>, <｜x｜>, [|x|], <|x>, <x|>.
_SPECIAL_TOKEN = re.compile(
    r"[<\[][|｜][^\s<>|｜][^<>\n|｜]{0,78}[|｜][>\]]"
    r"|<[|｜][A-Za-z][^\s<>|｜]{0,60}>|<[A-Za-z][^\s<>|｜/]{0,60}[|｜]>"
)
_CLOSING_TAG = re.compile(r"</([A-Za-z][\w.:|\-]{0,60})[^<>\n]{0,80}>")
_MARKUP = re.compile(
    "|".join((*map(re.escape, _MESSAGE_ENDS), _SPECIAL_TOKEN.pattern, _CLOSING_TAG.pattern))
)
# At the end of an answer these are tokens too: <end_of_x>, [END_X], [/X].
_LAST_MARKUP = re.compile(
    rf"(?:{_MARKUP.pattern}|<[A-Za-z]+_\w{{1,60}}>|\[(?:/|[A-Z]{{2,40}}_)[A-Z_]{{1,40}}\])\Z"
)
_MAX_MARKUP_CHARS = 160
_MAX_MESSAGE_ENDS = 16
_BRACKETED = re.compile(r"[<\[][^\s<>\[\]]{1,80}[>\]]")

_TAG = re.compile(r"<(/?)([A-Za-z][\w.:|\-]{0,60})(?:\s[^<>]{0,200})?(?<!/)>")
_UNFINISHED_TAG = re.compile(
    r"<(?:[/|｜][^<>\s]{0,80}|[A-Za-z]\w{0,40}[_:|][^<>]{0,80})\Z|(?:\A|[\n>])[ \t]*<[^<>]{0,160}\Z"
)
# Signs for white space, except inside DeepSeek's special tokens.
_PIECE = re.compile(r"(<｜[^<>｜]{1,60}｜>)|[▁Ġ]|Ċ|<0x0A>")
_WHITE_SPACE = {"Ċ": "\n", "<0x0A>": "\n"}
_BRACKET = re.compile(r"[\[\]{}]")
_INLINE_CODE = re.compile(r"`[^`\n]{0,400}`")

_REASONING_OPENS = re.compile(
    r"<(?:\w{1,16}:)?think\w{0,16}>|\[THINK\]|<\|START_THINKING\|>|<\|channel>thought"
    r"|<\|plamo:begin_think:plamo\|>|<\|content_thinking\|>"
    r"|(?:<\|channel\|>analysis|\bto=self)[^<]{0,64}<\|message\|>"
)
_REASONING_CLOSES = re.compile(
    r"</(?:\w{1,16}:)?think\w{0,16}>|\[/THINK\]|<\|END_THINKING\|>|<channel\|>"
    r"|<\|plamo:end_think:plamo\|>|<\|message_model\|>|<\|content_text\|>|<\|start\|>"
)

# Longest text after a call that does not count as a message.
MAX_AFTERWORD_CHARS = 48


def as_plain_text(text: str) -> str:
    """Return `text` with white space in place of a tokenizer's own signs for it. Pure.

    Some tokenizers leave these signs when special tokens are kept; such text has no space at all.
    """
    if " " in text or not _PIECE.search(text):
        return text
    return _PIECE.sub(lambda piece: piece[1] or _WHITE_SPACE.get(piece[0], " "), text)


def message_start(text: str) -> int | None:
    """Return the offset of the message after the reasoning; None if unfinished. Pure."""
    start = 0
    for closing in _REASONING_CLOSES.finditer(text):
        start = closing.end()
    opened = any(
        _begins_line(text, opening.start()) or opening[0][0] != "<"
        for opening in _REASONING_OPENS.finditer(text, start)
    )
    return None if opened else start


def without_message_ends(
    text: str, kept: tuple[str, ...], tokens: SpecialTokens = NO_SPECIAL_TOKENS
) -> str:
    """Return `text` without final tokens and white space that end any message. Pure.

    Stops at text that ends in one of `kept`.
    """
    text = text.rstrip()
    for _ in range(_MAX_MESSAGE_ENDS):
        token = _last_markup(text, tokens)
        if text.endswith(kept) or not token or not _ends_message(token, tokens):
            break
        text = text[: -len(token)].rstrip()
    return text


def without_markup(text: str, tokens: SpecialTokens = NO_SPECIAL_TOKENS) -> str:
    """Return `text` without special tokens and closing tags, known or not. Pure."""
    text = _MARKUP.sub("", text)
    if tokens.ends or tokens.others:
        text = _BRACKETED.sub(lambda m: "" if m[0] in tokens else m[0], text)
    return text.strip()


def is_answer(
    message: str, known: frozenset[str], tokens: SpecialTokens = NO_SPECIAL_TOKENS
) -> bool:
    """Whether `message` is certainly an answer. Pure.

    False if it contains a special token, or ends in a tag, that may do more than end a message; if
    it breaks off inside an element or a bracket; and if it closes one that it did not open. Code
    blocks and inline code are ignored.

    Args:
        message: A model's message, without the tokens that end it.
        known: Closing tags that an answer may end with.
        tokens: The special tokens of the model's tokenizer.
    """
    text = _without_code(message)
    found = [*_special_tokens(text, tokens), _last_markup(text, tokens)]
    for closing in _CLOSING_TAG.finditer(text, max(0, len(text) - _MAX_MARKUP_CHARS)):
        rest = text[closing.end() :]
        if "`" not in rest and len(rest.strip()) <= MAX_AFTERWORD_CHARS:
            found.append(closing[0])
    if not all(not token or token in known or _is_plain(token, tokens) for token in found):
        return False
    tail = max(0, len(text) - 2 * _MAX_MARKUP_CHARS)
    if _UNFINISHED_TAG.search(text, tail):
        return False
    return not (_has_open_tag(text) or _has_open_bracket(text) or _ends_open_bracket(text))


def _special_tokens(text: str, tokens: SpecialTokens) -> list[str]:
    found = [match[0] for match in _SPECIAL_TOKEN.finditer(text)]
    if tokens.others:
        found += [match[0] for match in _BRACKETED.finditer(text) if match[0] in tokens.others]
    return found


def _last_markup(text: str, tokens: SpecialTokens) -> str | None:
    tail = text[-_MAX_MARKUP_CHARS:]
    for special in (tokens.ends, tokens.others):
        if tail.endswith(tuple(special)):
            return max((token for token in special if tail.endswith(token)), key=len)
    match = _LAST_MARKUP.search(tail)
    return None if match is None else match[0]


def _is_plain(token: str, tokens: SpecialTokens) -> bool:
    closing = _CLOSING_TAG.fullmatch(token)
    if closing is not None and closing[1].casefold() in _ORDINARY_ELEMENTS:
        return True
    return _ends_message(token, tokens)


def _ends_message(token: str, tokens: SpecialTokens) -> bool:
    if token in tokens.ends or token in _MESSAGE_ENDS:
        return True
    closing = _CLOSING_TAG.fullmatch(token)
    if closing is not None:
        return closing[1].casefold() in _WRAPPERS
    return _MESSAGE_NAME.fullmatch(re.sub(r"[^a-z]", "", token.casefold())) is not None


def _has_open_tag(text: str) -> bool:
    """Whether an element that is not HTML begins a line and is not closed."""
    closed = {tag[2]: tag.start() for tag in _TAG.finditer(text) if tag[1]}
    return any(
        _begins_line(text, tag.start()) and closed.get(tag[2], -1) < tag.start()
        for tag in _TAG.finditer(text)
        if not tag[1] and tag[2].casefold() not in _ORDINARY_ELEMENTS
    )


def _has_open_bracket(text: str) -> bool:
    """Whether a bracket that begins a line is not closed."""
    depth = 0
    for bracket in reversed(list(_BRACKET.finditer(text))):
        if bracket[0] in "]}":
            depth += 1
        elif depth:
            depth -= 1
        elif _begins_line(text, bracket.start()):
            return True
    return False


def _ends_open_bracket(text: str) -> bool:
    """Whether the bracket at the end closes one before the text's beginning."""
    if not text.endswith(("}", "]")):
        return False
    depth = 0
    for bracket in reversed(re.findall(r"[()\[\]{}]", text)):
        depth += 1 if bracket in ")]}" else -1
        if depth == 0:
            return False
    return True


def _begins_line(text: str, at: int) -> bool:
    return text[max(0, at - 16) : at].rstrip(" \t")[-1:] in ("", "\n", ">")


def _without_code(text: str) -> str:
    """Return the text with a back quote in place of each piece of code."""
    pieces = text.split("```")
    if len(pieces) % 2:
        prose = pieces[::2]
    elif re.match(r"\w", pieces[-1]):
        prose = [*pieces[::2], ""]  # ends inside a block: only an opening fence names a language
    else:
        prose = ["", *pieces[1::2]]  # begins inside one
    return _INLINE_CODE.sub("`", "`".join(prose))
