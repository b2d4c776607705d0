"""Tests of which sessions count as in use on an engine."""

from __future__ import annotations

import random

from holdfast.gateway.engines import Engine
from holdfast.gateway.sessions_in_use import PlacedSession, SessionsInUse

A, B = Engine("a", ""), Engine("b", "")


class Sessions:
    """Sessions that take turns of a second, on a clock of the test's."""

    def __init__(self) -> None:
        self.in_use = SessionsInUse()
        self.now_s = 0.0

    def turn(self, session: PlacedSession, num_bytes: int = 100) -> None:
        session.num_bytes = num_bytes
        self.in_use.settle(self.now_s)
        self.in_use.placed(session, self.now_s)
        self.now_s += 1.0
        self.in_use.ended(session, self.now_s)

    def learn(self, gap_s: float) -> None:
        """Let a session return many times after equal pauses, and be closed."""
        session = PlacedSession("teacher", B)
        for _ in range(400):
            self.turn(session)
            self.now_s += gap_s
        self.in_use.forget(session)

    def bytes_on(self, engine: Engine) -> int:
        self.in_use.settle(self.now_s)
        return self.in_use.num_bytes(engine)


def test_sessions_hold_their_last_prompt() -> None:
    sessions, session = Sessions(), PlacedSession("s", A)
    sessions.turn(session, 100)
    sessions.turn(session, 300)
    assert sessions.bytes_on(A) == 300
    session.engine = B
    sessions.turn(session, 400)
    assert (sessions.bytes_on(A), sessions.bytes_on(B)) == (0, 400)


def test_a_pause_longer_than_nearly_all_ends_the_use() -> None:
    sessions, session = Sessions(), PlacedSession("s", A)
    sessions.learn(10.0)
    sessions.turn(session)
    sessions.now_s += 9.0
    assert sessions.bytes_on(A) == 100
    sessions.now_s += 20.0
    assert sessions.bytes_on(A) == 0
    sessions.turn(session, 200)  # it returns after all
    assert sessions.bytes_on(A) == 200


def test_without_observed_pauses_all_sessions_count() -> None:
    sessions, session = Sessions(), PlacedSession("s", A)
    sessions.turn(session)
    sessions.now_s += 1e6
    assert sessions.bytes_on(A) == 100


def test_a_session_at_work_counts_however_long_it_takes() -> None:
    sessions, session = Sessions(), PlacedSession("s", A)
    sessions.learn(10.0)
    session.num_bytes = 100
    sessions.in_use.placed(session, sessions.now_s)
    sessions.in_use.placed(session, sessions.now_s)  # two requests at once
    sessions.in_use.ended(session, sessions.now_s + 1.0)
    sessions.now_s += 1e5
    assert sessions.bytes_on(A) == 100
    sessions.in_use.ended(session, sessions.now_s)
    assert sessions.bytes_on(A) == 100
    sessions.now_s += 1e5
    assert sessions.bytes_on(A) == 0


def test_bytes_add_up_after_random_turns() -> None:
    source, sessions = random.Random(3), Sessions()
    known = [PlacedSession(str(number), A) for number in range(20)]
    counted: dict[PlacedSession, tuple[Engine, int]] = {}
    for _ in range(2000):
        session = source.choice(known)
        if source.random() < 0.1:
            sessions.in_use.forget(session)
            counted.pop(session, None)
            continue
        session.engine = source.choice([A, B])
        sessions.turn(session, source.randrange(1, 1000))
        counted[session] = session.engine, session.num_bytes
        sessions.now_s += source.expovariate(1.0)
    gone = {each for each in known if each not in sessions.in_use._counted}
    for engine in (A, B):
        expected = sum(
            n for each, (where, n) in counted.items() if where is engine and each not in gone
        )
        assert sessions.in_use.num_bytes(engine) == expected
