"""Settings in a policy's name: read, checked, shown, and given to the policy."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint
from typing import Annotated, ClassVar

import msgspec
import pytest
from msgspec import Meta
from tests.policies.host import Cache

from holdfast.config import load_config
from holdfast.errors import PolicyError
from holdfast.policies import family, registry
from holdfast.policies.base import EvictionPolicy, PolicySettings, PolicySpec
from holdfast.policies.published.thunderagent import ThunderAgent, ThunderAgentSettings
from holdfast.policies.registry import (
    build_policies,
    check_deployable,
    decided_by,
    policy_names,
    policy_spec,
)
from holdfast.policies.spec import read_settings
from holdfast.runtime.context import RuntimeContext


class Settings(PolicySettings, frozen=True, kw_only=True):
    share: Annotated[float, Meta(gt=0, le=1)] = 0.5
    limit: Annotated[int, Meta(ge=1)] = 3


class Third(EvictionPolicy):
    spec: ClassVar[PolicySpec] = PolicySpec("third", "Is set.", "a test", settings=Settings)


def settings_of(name: str) -> object:
    policies = build_policies(name, RuntimeContext("never", None, None))
    return policies.admission.settings


def test_defaults_hold_where_nothing_is_set() -> None:
    assert settings_of("thunderagent") == ThunderAgentSettings()
    assert read_settings("third", Settings, []) == Settings(share=0.5, limit=3)


def test_settings_reach_the_policy_that_is_built() -> None:
    assert settings_of("thunderagent:idle_lease_s=30:capacity_share=0.9") == ThunderAgentSettings(
        idle_lease_s=30.0, capacity_share=0.9
    )


def test_each_part_of_a_product_has_its_settings() -> None:
    name = "thunderagent:period_s=2+cachewise"
    policies = build_policies(
        "cachewise+thunderagent:period_s=2", RuntimeContext("never", None, None)
    )
    assert isinstance(policies.admission, ThunderAgent)
    assert policies.admission.interval_s == 2.0
    assert policy_spec(name).name == name


def test_whole_name_stands_in_the_spec() -> None:
    name = "thunderagent:idle_lease_s=30"
    plain = policy_spec("thunderagent")
    assert policy_spec(name).name == name
    assert policy_spec(name).source == plain.source
    assert decided_by(name) == decided_by("thunderagent") == ("admission",)


def test_name_with_settings_is_deployable_and_configurable() -> None:
    name = "cachewise+thunderagent:force_resume_s=60"
    check_deployable(name)
    assert load_config(None, {"HOLDFAST_POLICY": name}).policy == name
    assert isinstance(Cache(name, 8).runtime.policies.admission, ThunderAgent)


def test_infinite_value_is_read() -> None:
    assert settings_of("thunderagent:force_resume_s=inf") == ThunderAgentSettings(
        force_resume_s=math.inf
    )


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["shere=1"], "policy 'third' has no setting 'shere=1'"),
        (["share"], "policy 'third' has no setting 'share'"),
        ([""], "policy 'third' has no setting ''"),
        (["share=2"], r"policy 'third': share is '2': Expected `float` <= 1.0"),
        (["share=nan"], r"policy 'third': share is 'nan': Expected `float` > 0.0"),
        (["share=half"], r"policy 'third': share is 'half': Expected `float`, got `str`"),
        (["limit=2.5"], r"policy 'third': limit is '2.5': Expected `int`"),
        (["limit=2", "limit=3"], "policy 'third': limit is set twice"),
    ],
)
def test_bad_setting_names_policy_key_value_and_keys(pairs: list[str], message: str) -> None:
    with pytest.raises(PolicyError, match=message) as caught:
        read_settings("third", Settings, pairs)
    assert caught.value.hint == "settings of third: share, limit"


def test_policy_without_settings_takes_none() -> None:
    for ask in (policy_spec, check_deployable, decided_by):
        with pytest.raises(PolicyError, match="policy 'holdfast' has no setting 'eta=1'") as caught:
            ask("holdfast:eta=1")
        assert caught.value.hint == "settings of holdfast: none"


def test_engine_mode_has_no_settings() -> None:
    with pytest.raises(PolicyError, match="which has no settings"):
        policy_spec("vllm-default:block=1")


def test_policy_of_another_package_has_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("third", f"{__name__}:Third", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Third)
    monkeypatch.setattr(family, "entry_points", lambda **_: [point])
    policies = build_policies("third:limit=7", RuntimeContext("never", None, None))
    assert policies.eviction.settings == Settings(limit=7)


@pytest.mark.parametrize("name", policy_names())
def test_every_setting_is_described_and_valid_by_default(name: str) -> None:
    kind = policy_spec(name).settings
    for field in msgspec.structs.fields(kind) if kind else ():
        assert f"        {field.name}: " in (kind.__doc__ or "")
        assert msgspec.convert(field.default, field.type) == field.default
