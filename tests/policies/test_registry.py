"""The registry: names, products of policies, and what an engine can run."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from typing import ClassVar

import pytest
from tests.policies.host import Cache, FixedOracle, hashes_of, requests

from holdfast.errors import PolicyError
from holdfast.policies import family, registry
from holdfast.policies.base import (
    AdmissionPolicy,
    EvictionPolicy,
    Need,
    Policy,
    PolicySpec,
    PrefetchPolicy,
)
from holdfast.policies.bounds.clairvoyant import Clairvoyant
from holdfast.policies.engine_modes import ENGINE_MODES
from holdfast.policies.ours.holdfast import Holdfast
from holdfast.policies.ours.recurring_agents_prefetch import RecurringAgentsPrefetch
from holdfast.policies.ours.return_rate_eviction import ReturnRateEviction
from holdfast.policies.ours.working_set_admission import WorkingSetAdmission
from holdfast.policies.published.autellix import Autellix
from holdfast.policies.published.cachewise import CacheWise
from holdfast.policies.published.continuum import Continuum
from holdfast.policies.published.kvflow import KVFlow
from holdfast.policies.published.marconi import Marconi
from holdfast.policies.registry import (
    PolicySet,
    build_policies,
    check_deployable,
    policy_class,
    policy_names,
    policy_spec,
    policy_specs,
)
from holdfast.runtime.context import RuntimeContext
from holdfast.runtime.runtime import AgentRuntime

MODES = sorted(ENGINE_MODES)


def build(name: str, oracle: FixedOracle | None = None) -> PolicySet:
    return build_policies(name, RuntimeContext("never", oracle, None))


def kinds(policies: PolicySet) -> tuple[type[Policy], type[Policy], type[Policy]]:
    """Classes that decide on eviction, admission and prefetch."""
    return type(policies.eviction), type(policies.admission), type(policies.prefetch)


# Names.


def test_names_are_unique_and_match_their_specs() -> None:
    assert [spec.name for spec in policy_specs()] == list(policy_names())
    assert len(set(policy_names())) == len(policy_names())


def test_engine_modes_are_named_before_policies() -> None:
    assert policy_names()[: len(ENGINE_MODES)] == tuple(ENGINE_MODES)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(PolicyError, match="unknown policy 'belady'") as caught:
        policy_class("belady")
    assert caught.value.hint is not None
    assert all(name in caught.value.hint for name in policy_names())


class Third(EvictionPolicy):
    spec: ClassVar[PolicySpec] = PolicySpec("third", "Of another package.", "a test")


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy of another package, found by its entry point."""
    point = EntryPoint("third", f"{__name__}:Third", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Third)
    monkeypatch.setattr(family, "entry_points", lambda **_: [point])


@pytest.mark.usefixtures("third")
def test_policy_of_another_package_found_by_entry_point() -> None:
    assert policy_class("third") is Third
    assert isinstance(build("third").eviction, Third)


@pytest.mark.usefixtures("third")
def test_policy_of_another_package_joins_a_product() -> None:
    assert kinds(build("third+working-set"))[:2] == (Third, WorkingSetAdmission)


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        ("no_such_module:Mine", "cannot be loaded from no_such_module:Mine: No module"),
        ("holdfast.policies.base:NoSuchClass", "cannot be loaded from .*: module"),
        ("holdfast.policies.base:EvictionPolicy", "has spec None"),
        ("holdfast.policies.published.saga:Saga", "has spec PolicySpec"),
    ],
)
def test_broken_entry_point_named_and_others_listed(
    monkeypatch: pytest.MonkeyPatch, value: str, pattern: str
) -> None:
    point = EntryPoint("broken", value, registry.ENTRY_POINT_GROUP)

    def points(*, group: str, name: str | None = None) -> EntryPoints:
        assert group == registry.ENTRY_POINT_GROUP
        return EntryPoints([point] if name in (None, "broken") else [])

    monkeypatch.setattr(family, "entry_points", points)
    with pytest.raises(PolicyError, match=pattern):
        policy_class("broken")
    specs = {spec.name: spec for spec in policy_specs()}
    assert "cannot be used" in specs["broken"].summary
    assert specs["holdfast"].source


def test_class_that_is_no_policy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("odd", "builtins:int", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(family, "entry_points", lambda **_: [point])
    with pytest.raises(PolicyError, match=r"policy 'odd' is .*int.* not a subclass"):
        policy_class("odd")


# Products.


@pytest.mark.parametrize(
    ("name", "eviction", "admission", "prefetch"),
    [
        ("marconi", Marconi, AdmissionPolicy, PrefetchPolicy),
        ("autellix", EvictionPolicy, Autellix, PrefetchPolicy),
        ("cachewise", CacheWise, CacheWise, PrefetchPolicy),
        ("kvflow", KVFlow, KVFlow, KVFlow),
        ("holdfast", Holdfast, Holdfast, Holdfast),
        ("cachewise+working-set", CacheWise, WorkingSetAdmission, PrefetchPolicy),
        ("working-set+cachewise", CacheWise, CacheWise, PrefetchPolicy),
        ("marconi+autellix", Marconi, Autellix, PrefetchPolicy),
        ("holdfast+marconi", Marconi, Holdfast, Holdfast),
        ("cachewise+continuum", Continuum, Continuum, PrefetchPolicy),
        ("kvflow+working-set+marconi", Marconi, WorkingSetAdmission, KVFlow),
        (
            "return-rate+working-set+recurring-agents",
            ReturnRateEviction,
            WorkingSetAdmission,
            RecurringAgentsPrefetch,
        ),
    ],
)
def test_later_part_decides_what_it_can(
    name: str, eviction: type[Policy], admission: type[Policy], prefetch: type[Policy]
) -> None:
    assert kinds(build(name)) == (eviction, admission, prefetch)


def test_one_object_decides_all_that_a_policy_can() -> None:
    policies = build("holdfast")
    assert policies.eviction is policies.admission is policies.prefetch  # type: ignore[comparison-overlap]


def test_product_evicts_as_one_part_and_admits_as_the_other() -> None:
    cache = Cache("cachewise+working-set", 20)
    cache.run("a", hashes_of("aaaa"))
    assert cache.eviction.rescore_interval_steps == 3
    assert next(iter(cache.runtime.sessions)).has_reservation  # CacheWise makes none
    cold, small = cache.arrive("b", hashes_of("b" * 18)), cache.arrive("c", hashes_of("cc"))
    # Sixteen blocks are left. CacheWise would admit c and then b; here b holds c back.
    assert requests(cache.admit([cold, small]).admitted) == []
    alone = Cache("cachewise", 20)
    waiting = [alone.arrive("b", hashes_of("b" * 18)), alone.arrive("c", hashes_of("cc"))]
    assert requests(alone.admit(waiting).admitted) == ["c", "b"]


def test_product_of_parts_decides_as_the_joint_policy() -> None:
    lost = []
    for name in ("holdfast", "return-rate+working-set+recurring-agents"):
        cache = Cache(name, 12)
        for number in range(30):
            cache.now_s += 1.0 + number % 5
            agent = "ABC"[number % 3]
            cache.run(f"r{number}", hashes_of(agent * 3 + chr(0x100 + number % 7)))
        lost.append(cache.evicted)
    assert lost[0] == lost[1]


def test_spec_of_a_product_joins_those_of_its_parts() -> None:
    spec, first, second = map(policy_spec, ("marconi+autellix", "marconi", "autellix"))
    assert spec.name == "marconi+autellix"
    assert "marconi, then of autellix" in spec.summary
    assert spec.source == f"{first.source}; {second.source}"
    assert spec.differs == f"{first.differs} {second.differs}"
    assert spec.needs == frozenset()


def test_spec_of_one_part_is_the_policys_own() -> None:
    assert policy_spec("marconi") is Marconi.spec


def test_needs_of_a_product_are_united() -> None:
    assert policy_spec("marconi+clairvoyant").needs == {Need.FUTURE}
    assert policy_spec("clairvoyant+working-set").needs == {Need.FUTURE}


def test_product_with_the_future_needs_an_oracle() -> None:
    with pytest.raises(PolicyError, match=r"'marconi\+clairvoyant' knows the future"):
        build("marconi+clairvoyant")
    assert isinstance(build("marconi+clairvoyant", FixedOracle()).eviction, Clairvoyant)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pattern", ["{}+working-set", "working-set+{}"])
def test_engine_mode_in_a_product_is_refused(mode: str, pattern: str) -> None:
    name = pattern.format(mode)
    for ask in (policy_spec, check_deployable, build):
        with pytest.raises(PolicyError, match=f"{mode!r} in ") as caught:
            ask(name)
        assert name in str(caught.value)
        assert caught.value.hint is not None and repr(mode) in caught.value.hint


@pytest.mark.parametrize(
    ("name", "part"),
    [("cachewise+belady", "belady"), ("belady+cachewise", "belady"), ("cachewise+", "")],
)
def test_unknown_part_is_named(name: str, part: str) -> None:
    for ask in (policy_spec, build):
        with pytest.raises(PolicyError, match=f"unknown policy {part!r}"):
            ask(name)


# Engines.


@pytest.mark.parametrize("mode", MODES)
def test_engine_mode_leaves_all_to_the_engine(mode: str) -> None:
    policies = build(mode, FixedOracle())
    assert kinds(policies) == (EvictionPolicy, AdmissionPolicy, PrefetchPolicy)
    assert not policies.orders_requests


@pytest.mark.parametrize(
    ("name", "orders"),
    [("marconi", False), ("kvflow", True), ("autellix", True), ("marconi+working-set", True)],
)
def test_requests_are_ordered_only_where_admission_decides(name: str, orders: bool) -> None:
    assert build(name).orders_requests == orders


@pytest.mark.parametrize(
    "name", [name for name in policy_names() if Need.FUTURE in policy_spec(name).needs]
)
def test_future_is_refused_without_an_oracle(name: str) -> None:
    with pytest.raises(PolicyError, match="future"):
        AgentRuntime(max_sessions=10, max_wait_ratio=1.5, policy=name)


def test_mode_without_a_prefix_cache_is_not_deployable() -> None:
    (name,) = (m.spec.name for m in ENGINE_MODES.values() if not m.has_prefix_cache)
    with pytest.raises(PolicyError, match="keeps no KV blocks") as caught:
        check_deployable(name)
    assert caught.value.hint is not None and "--no-enable-prefix-caching" in caught.value.hint


@pytest.mark.parametrize("name", ["vllm-default", "holdfast", "cachewise+working-set"])
def test_policy_without_the_future_is_deployable(name: str) -> None:
    check_deployable(name)
