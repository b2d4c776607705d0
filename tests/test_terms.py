"""Code and documents use the words of docs/terms.md, and no retired ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for path in (
        *(ROOT / "src").rglob("*.py"),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "benchmarks").rglob("*.py"),
        *(ROOT / "examples").glob("*.py"),
        *(ROOT / "docs").glob("*.md"),
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "benchmarks" / "README.md",
    )
    if path != Path(__file__)
)
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^A-Za-z_\s]+")
"""A part of a name (`EvictionQueue`, `node_heap`), or whatever is between words."""


def _within(*packages: str) -> tuple[str, ...]:
    return tuple(f"{top}/{name}/" for name in packages for top in ("src/holdfast", "tests"))


DECISIONS = _within("cache", "core", "policies", "runtime", "vllm")
POLICIES = _within("policies", "runtime")


@dataclass(frozen=True, slots=True)
class Retired:
    """A word that nothing uses any more.

    Attributes:
        words: Regular expression over a line's words, in lower case, with names taken apart.
        instead: Terms to use.
        within: Beginnings of the paths that it is checked in; all of them where empty.
    """

    words: str
    instead: str
    within: tuple[str, ...] = ()


RETIRED = (
    # Things.
    Retired("ghosts?", "placeholder request"),
    Retired("errands?", "prefetch"),
    Retired("desks?", "offload controller, request tracker"),
    Retired("lanes?", "block list"),
    Retired("fates?", "return tracker, outcome"),
    Retired("outlooks?", "oracle"),
    Retired("scenes?", "policy context"),
    Retired("absent|absents", "idle session, missing"),
    Retired("freshness", "rescore schedule"),
    Retired("backlogs?", "wait bound"),
    Retired("successions?|recurrences?|habits?", "agent transition, inter-arrival time"),
    Retired("callers", "recurring agent", POLICIES),
    Retired("keepers?|tidy|tidies|tidied|tidying", "session blocks, garbage collection"),
    Retired("paces?", "session speed factor"),
    Retired("survivals?", "copy retention", _within("cache", "core", "runtime", "vllm")),
    Retired("grains?", "cache layout"),
    Retired("climbs?|climbed", "prompt growth"),
    Retired("novelt(y|ies)", "new tokens"),
    Retired("kinship|kin", "related files"),
    Retired("standings?", "policy ranking"),
    Retired("segments?", "node of the prefix tree", DECISIONS),
    Retired("runs? of (the )?(blocks|nodes|chain tree|prefix tree)", "node of the prefix tree"),
    Retired("chains?", "path, nodes", DECISIONS),
    Retired("rooms?", "budget, free blocks, space"),
    Retired("places", "reservation, position", DECISIONS),
    Retired(
        "(holds?|held|holding|keeps?|kept|keeping|loses?|lost|has|have|without|yields?|gives?)"
        " (a |its |their |the |every |no )place",
        "reservation",
    ),
    Retired("worths?", "retention priority"),
    # Acts.
    Retired("sen[dt]s? for|sending for|br(ing|ings|inging|ought) closer", "prefetch"),
    Retired("renew(s|ed|als?|ing)?|rerates?|rerated", "rescore", DECISIONS),
    Retired("refresh(es|ed|ing)?|reviews?|reviewed", "rescore, decide", DECISIONS),
    Retired("lets? in|letting in|let(s|ting)? (it|them|(a|the) (turn|request)s?) in", "admit"),
    Retired("giv(en|es?|ing) up|gave up", "evict, release, drop, abandon, stop"),
    Retired("pays|rests", "is enabled, is disabled, net benefit"),
    Retired("what (computing|copying) takes", "cost"),
    # Sentences.
    Retired("nobody|nobodys|whoever|whom", "no session, the turn that"),
    Retired("foremost", "first: oldest first"),
    Retired("(comes?|came) of", "follows from"),
    Retired("what (became|becomes|has become) of", "outcome"),
    Retired("(is|are) said|says? so", "report"),
    Retired("(?<!falls )(?<!fall )(?<!falling )(?<!left )behind", "after, below"),
)
PATTERNS = [(retired, re.compile(rf"\b({retired.words})\b")) for retired in RETIRED]
ANY = re.compile(rf"\b({'|'.join(retired.words for retired in RETIRED)})\b")

KEPT = {
    "num_climbs_by_size": "a key of a study's JSON",
    '"worth"': "a label value of holdfast_fallbacks_total",
    "stored_worth": "a label value of holdfast_fallbacks_total",
    "_segments": "an attribute of vLLM's shared memory region",
}
"""Text that is taken out of lines first: names that users depend on, and other programs' words."""


def retired_words(line: str, name: str) -> Iterator[str]:
    """Retired words of a line in file `name`, each with what to write."""
    for kept in KEPT:
        line = line.replace(kept, "")
    words = " ".join(word.lower() for word in WORD.findall(line))
    if not ANY.search(words):
        return
    for retired, pattern in PATTERNS:
        match = pattern.search(words)
        if match and (not retired.within or name.startswith(retired.within)):
            yield f"{match[0]!r}: write {retired.instead}"


def retired_in(path: Path) -> list[str]:
    """Retired words of a file, each with its line."""
    name = path.relative_to(ROOT).as_posix()
    return [
        f"{name}:{number}: {found}"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for found in retired_words(line, name)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_retired_word_is_used(path: Path) -> None:
    found = retired_in(path)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("self._ghosts = Ghosts()", "ghosts"),
        ("class TierDesk:", "desk"),
        ("The turn keeps its place.", "keeps its place"),
        ("what the engine gave up", "gave up"),
        ("one kind of task behind another", "behind"),
    ],
)
def test_retired_words_are_found_in_names_and_texts(line: str, found: str) -> None:
    (message,) = retired_words(line, "README.md")
    assert message.startswith(repr(found))


def test_a_word_may_be_retired_in_some_packages_only() -> None:
    line = "a Markov chain"
    assert list(retired_words(line, "src/holdfast/cache/x.py"))
    assert not list(retired_words(line, "src/holdfast/workload/x.py"))


def test_names_that_users_depend_on_are_kept() -> None:
    assert not list(retired_words('field(name="num_climbs_by_size")', "src/holdfast/x.py"))
