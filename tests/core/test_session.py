"""Which session a prompt continues, and which sessions are forgotten first."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.cache.prefix_tree import PrefixTree
from holdfast.core.session import Session, SessionState, SessionTable

IDLE = [s for s in SessionState if not s.is_busy]


def hashes_of(text: str) -> list[bytes]:
    return [text[: i + 1].encode() for i in range(len(text))]


class Talk:
    """A session table and turns on it, as the runtime keeps them."""

    def __init__(self, max_sessions: int = 100) -> None:
        self.tree: PrefixTree[Any] = PrefixTree()
        self.table = SessionTable(self.tree, max_sessions)

    def turn(
        self,
        prompt: str,
        answer: str = "",
        *,
        group: str | None = None,
        state: SessionState = SessionState.AT_TOOL,
        paused_at_s: float = 0.0,
    ) -> Session:
        """A new session that has had one turn."""
        session = self.table.add(group)
        return self.say(session, prompt, answer, state=state, paused_at_s=paused_at_s)

    def say(
        self,
        session: Session,
        prompt: str,
        answer: str = "",
        *,
        state: SessionState = SessionState.AT_TOOL,
        paused_at_s: float = 0.0,
    ) -> Session:
        session.tail.tails.discard(session)
        session.prompt_tail.prompts.discard(session)
        session.prompt_tail = self.tree.insert(hashes_of(prompt))[0]
        session.prompt_tail.prompts.add(session)
        session.tail = self.tree.insert(hashes_of(prompt + answer))[0]
        session.tail.tails.add(session)
        session.state = state
        session.paused_at_s = paused_at_s
        return session

    def find(self, prompt: str, group: str | None = None) -> Session | None:
        return self.table.find(hashes_of(prompt), group)


def test_prompt_that_repeats_the_answer_continues_the_session() -> None:
    talk = Talk()
    session = talk.turn("abc", "de")

    assert talk.find("abcdefg") is session


def test_prompt_that_diverges_in_the_answer_continues_a_session() -> None:
    talk = Talk()
    session = talk.turn("abc", "de")

    assert talk.find("abcdxx") is session
    assert talk.find("abcx") is session


def test_prompt_repeated_word_for_word_continues_the_session() -> None:
    talk = Talk()
    session = talk.turn("abc", "de")

    assert talk.find("abc") is session


@pytest.mark.parametrize("prompt", ["ab", "abx", "abxdefgh", "x", ""])
def test_prompt_that_extends_no_last_prompt_is_a_new_session(prompt: str) -> None:
    talk = Talk()
    talk.turn("abc", "de")

    assert talk.find(prompt) is None


def test_only_the_last_prompt_of_a_session_counts() -> None:
    talk = Talk()
    session = talk.turn("abc", "de")
    talk.say(session, "abcdefg")

    assert talk.find("abcx") is None
    assert talk.find("abcdefghi") is session


def test_session_with_the_deepest_prompt_wins() -> None:
    talk = Talk()
    talk.turn("ab", paused_at_s=9.0)
    deep = talk.turn("abcd", paused_at_s=1.0)
    talk.turn("abcdxy", paused_at_s=5.0)

    assert talk.find("abcdefg") is deep


def test_among_equal_prompts_the_last_to_pause_wins() -> None:
    talk = Talk()
    talk.turn("abc", "1", paused_at_s=1.0)
    last = talk.turn("abc", "2", paused_at_s=3.0)
    talk.turn("abc", "3", paused_at_s=2.0)

    assert talk.find("abcz") is last


def test_among_equal_pauses_the_youngest_session_wins() -> None:
    talk = Talk()
    sessions = [talk.turn("abc", paused_at_s=1.0) for _ in range(20)]

    assert talk.find("abcd") is sessions[-1]


@pytest.mark.parametrize("state", [SessionState.RUNNING, SessionState.WAITING])
def test_busy_session_is_passed_over_for_a_shallower_idle_one(state: SessionState) -> None:
    talk = Talk()
    shallow = talk.turn("ab")
    talk.turn("abcd", state=state)

    assert talk.find("abcdef") is shallow


@pytest.mark.parametrize("state", IDLE)
def test_idle_session_is_found_in_any_idle_state(state: SessionState) -> None:
    talk = Talk()
    session = talk.turn("ab", state=state)

    assert talk.find("abc") is session


def test_explicit_id_finds_only_sessions_of_that_id() -> None:
    talk = Talk()
    ours = talk.turn("ab", group="ours")
    talk.turn("abcd", group="theirs")
    talk.turn("abcde")

    assert talk.find("abcdef", "ours") is ours
    assert talk.find("abcdef", "unknown") is None


def test_prompt_without_an_id_finds_only_sessions_without_one() -> None:
    talk = Talk()
    anonymous = talk.turn("ab")
    talk.turn("abcd", group="theirs")

    assert talk.find("abcdef") is anonymous


def test_a_fork_inside_the_prompt_does_not_hide_the_session() -> None:
    talk = Talk()
    session = talk.turn("abcdef", "gh")
    talk.turn("abcxyz")

    assert talk.find("abcdefghi") is session


def test_finding_changes_nothing() -> None:
    talk = Talk()
    talk.turn("abc", "de")
    size = len(talk.tree)

    talk.find("abcdxx")

    assert len(talk.tree) == size
    assert len(talk.table) == 1
    talk.tree.check_integrity()


def test_siblings_are_the_sessions_of_one_id() -> None:
    talk = Talk()
    first = talk.turn("ab", group="g")
    second = talk.turn("xy", group="g")
    other = talk.turn("zz", group="h")
    anonymous = talk.turn("qq")

    assert talk.table.siblings(first) == {first, second}
    assert talk.table.siblings(other) == {other}
    assert talk.table.siblings(anonymous) == set()


def test_dropped_session_leaves_its_group() -> None:
    talk = Talk()
    first = talk.turn("ab", group="g")
    second = talk.turn("xy", group="g")

    talk.table.drop(first)
    assert talk.table.siblings(second) == {second}
    assert list(talk.table) == [second]

    talk.table.drop(second)
    assert talk.table.siblings(second) == set()


def test_no_session_is_surplus_up_to_the_limit() -> None:
    talk = Talk(max_sessions=3)
    for name in "abc":
        talk.turn(name)

    assert talk.table.surplus() == []


def test_surplus_is_the_longest_untouched_first() -> None:
    talk = Talk(max_sessions=2)
    a, b, c, d = (talk.turn(name) for name in "abcd")
    talk.table.touch(a)

    assert talk.table.surplus() == [b, c]
    assert list(talk.table) == [b, c, d, a]


def test_busy_sessions_are_never_surplus() -> None:
    talk = Talk(max_sessions=1)
    a, b, c = (talk.turn(name) for name in "abc")
    a.state = SessionState.RUNNING
    b.state = SessionState.WAITING

    assert talk.table.surplus() == [c]


def test_sessions_are_numbered_in_order_of_first_sight() -> None:
    talk = Talk()
    a = talk.turn("a")
    talk.table.drop(a)

    assert [a.number, talk.turn("b").number, talk.turn("c").number] == [0, 1, 2]


def test_sets_of_sessions_iterate_alike_in_every_run() -> None:
    talk = Talk()
    sessions = [talk.turn("abc") for _ in range(50)]

    assert list(sessions[0].tail.tails) == sessions


def test_paused_and_busy_are_told_apart() -> None:
    assert {s for s in SessionState if s.is_paused} == {
        SessionState.AT_TOOL,
        SessionState.HUMAN_AWAY,
    }
    assert {s for s in SessionState if s.is_busy} == {SessionState.RUNNING, SessionState.WAITING}
