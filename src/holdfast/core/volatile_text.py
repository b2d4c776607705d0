"""Recognises text that changes by itself: dates, repository state, ids, reminders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal

__all__ = ["VOLATILE", "VolatileKind", "volatile_lines", "without"]

VolatileKind = Literal["billing", "date", "git", "id", "reminder"]

# Patterns begin with a class of characters, by which the search passes quickly over other text.
_MONTH: Final = "[JFMASOND](?:an|eb|ar|pr|ay|un|ul|ug|ep|ct|ov|ec)[a-z]*\\.?"
_CLOCK: Final = r":[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?: ?[AaPp]\.?[Mm]\b\.?)?(?![:0-9])"
_IN_FIGURES: Final = (
    r"[0-9](?<!\w.)(?:"
    rf"[0-9]{{3}}-[0-9]{{2}}-[0-9]{{2}}(?:[T ][0-9]{{2}}{_CLOCK}(?:Z|[+-][0-9]{{2}}:?[0-9]{{2}})?)?"
    r"(?![0-9])|[0-9]?[/.][0-9]{1,2}[/.][0-9]{4}\b"
    rf"|[0-9]? {_MONTH} [0-9]{{4}}\b|[0-9]?{_CLOCK})"
)
_IN_WORDS: Final = (
    r"[A-Z](?<!\w.)(?:(?:on|ues|ednes|hurs|ri|atur|un)day\b"
    r"|(?:an|eb|ar|pr|ay|un|ul|ug|ep|ct|ov|ec)[a-z]*\.?"
    r" (?:[0-9]{1,2}(?:st|nd|rd|th)?,? )?[0-9]{4}\b)"
)
# From the branch to the last commit listed, each line after the same word, as clients print it.
_GIT: Final = (
    r"^(?P<word>(?:\w+: )?)Current branch: [^\n]*\n"
    r"(?:(?P=word)[^\n]*\n|\n){1,400}?(?P=word)Recent commits:"
    r"(?:\n(?P=word)[0-9a-f]{7,40} [^\n]*)*"
)
_REMINDER: Final = (
    r"<(?P<tag>system-reminder|environment_details|environment_context)>.*?</(?P=tag)>\s*"
)
_HEX_ID: Final = (
    r"[0-9a-f](?<!\w.)(?:[0-9a-f]{7}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{15,63})\b"
)
_NAMED_ID: Final = r"[cfmrt](?<!\w.)(?:all|hatcmpl|c|sg|eq|oolu|ooluse)[-_][\w-]{8,}"

VOLATILE: Final[dict[VolatileKind, tuple[re.Pattern[str], ...]]] = {
    "billing": (re.compile(r"^x-[a-z]+-billing-header:[^\n]*\n?", re.MULTILINE),),
    "git": (re.compile(_GIT, re.MULTILINE),),
    "date": (re.compile(_IN_FIGURES), re.compile(_IN_WORDS)),
    "id": (re.compile(_HEX_ID), re.compile(_NAMED_ID)),
    "reminder": (re.compile(_REMINDER, re.DOTALL),),
}
"""What recognises each kind, in the order in which they are taken out of a text."""

_LITERALS: Final[dict[VolatileKind, str]] = {
    "billing": "-billing-header:",
    "git": "Current branch: ",
}
"""What each match of a kind has in it, where that is found sooner than the pattern."""


def without(text: str, *kinds: VolatileKind) -> str:
    """A text without what is of some kinds. Pure; O(text)."""
    for kind in kinds:
        if _LITERALS.get(kind, "") not in text:
            continue
        for pattern in VOLATILE[kind]:
            text = pattern.sub("", text)
    return text


def volatile_lines(text: str, *kinds: VolatileKind) -> Iterator[tuple[int, int]]:
    """Yield start and end of the whole lines of some kinds, in order. Pure; O(text)."""
    end = 0
    patterns = [pattern for kind in kinds for pattern in VOLATILE[kind]]
    found = sorted(match.span() for pattern in patterns for match in pattern.finditer(text))
    for first, last in found:
        if first < end or first == last:
            continue
        start = text.rfind("\n", 0, first) + 1
        stop = text.find("\n", last)
        end = len(text) if stop < 0 else stop
        yield start, end
