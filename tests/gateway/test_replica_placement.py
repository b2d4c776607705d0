"""Placement of sessions on replicas of Ray Serve LLM that come and go."""

from __future__ import annotations

from tests.gateway.owner_link import path

from holdfast.gateway.coordinator import Asked
from holdfast.gateway.replica_placement import ReplicaPlacement
from holdfast.gateway.shared_origins import Origin

NAMES = ("a", "b", "c")


def test_a_session_stays_on_its_replica() -> None:
    placement = ReplicaPlacement()
    chosen: dict[int, str] = {}
    for turn in range(4):
        for number in range(6):
            session_id = f"s{number}" if number % 2 else None
            texts = [f"{number}", *(str(each) for each in range(turn))]
            request_id = f"{number}.{turn}"
            name = placement.choice(request_id, Asked(session_id, path(*texts)), NAMES, turn)
            placement.ended(request_id, turn + 0.5)
            assert chosen.setdefault(number, name) == name
    assert set(chosen.values()) == set(NAMES)


def test_a_request_that_is_asked_for_again_keeps_its_replica() -> None:
    placement = ReplicaPlacement()
    asked = Asked("s", path("x"))
    first = placement.choice("1", asked, NAMES, 0.0)
    for number in range(30):  # so much that the policy would now choose another
        placement.sent(f"other {number}", Asked(f"o{number}", path(str(number))), first, 0.0)
    assert {placement.choice("1", asked, NAMES, 0.1) for _ in range(5)} == {first}
    assert sum(each.num_in_flight for each in placement._replicas) == 31
    left = [name for name in NAMES if name != first]
    assert placement.choice("1", asked, left, 0.2) in left
    assert sum(each.num_in_flight for each in placement._replicas) == 1  # those of `first` are gone


def test_replicas_come_and_go() -> None:
    placement = ReplicaPlacement()
    assert placement.choice("1", Asked("s", path("x")), ["a"], 0.0) == "a"
    placement.ended("1", 0.5)
    assert placement.choice("2", Asked("s", path("x", "y")), ["b"], 1.0) == "b"
    assert placement.choice("3", Asked("t", path("z")), ["b", "d"], 2.0) == "d"
    assert [each.name for each in placement._replicas] == ["b", "d"]


def test_where_a_request_was_really_sent_counts() -> None:
    placement = ReplicaPlacement()
    asked = Asked("s", path("x"))
    first = placement.choice("1", asked, NAMES, 0.0)
    other = next(name for name in NAMES if name != first)
    placement.sent("1", asked, other, 0.1)
    placement.ended("1", 0.2)
    assert placement.choice("2", Asked("s", path("x", "y")), NAMES, 1.0) == other
    placement.ended("2", 1.5)
    assert sum(each.num_in_flight for each in placement._replicas) == 0


def test_a_session_that_another_router_sent_is_followed() -> None:
    placement = ReplicaPlacement()
    for name in reversed(NAMES):
        told = Origin(name, 1000, 0.0)
        asked = Asked(f"session of {name}", path(name, "y"))
        assert placement.choice(name, asked, NAMES, 1.0, told) == name
        gone = Origin("gone", 1000, 0.0)
        assert placement.choice(f"{name}2", asked, NAMES, 2.0, gone) == name


def test_requests_that_never_end_are_forgotten() -> None:
    placement = ReplicaPlacement()
    for number in range(10_010):
        placement.choice(str(number), Asked("s", path("x")), NAMES, 0.0)
    assert sum(each.num_in_flight for each in placement._replicas) == 10_000
