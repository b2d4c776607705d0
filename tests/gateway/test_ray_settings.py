"""Settings of the gateway on Ray, and the counts of its replicas; neither needs Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from holdfast.errors import ConfigError
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.ray_settings import RaySettings

ENGINES = "http://127.0.0.1:8000,http://127.0.0.1:8001"
OPEN = {"engines": ENGINES, "open_to_all": "true"}


def test_arguments_of_a_command_line_are_read() -> None:
    settings = RaySettings.parse({**OPEN, "replicas": "3", "max_wait_ratio": "0"})
    assert [engine.name for engine in settings.known_engines()] == [
        "127.0.0.1:8000",
        "127.0.0.1:8001",
    ]
    assert (settings.replicas, settings.limits().max_wait_ratio) == (3, None)
    assert settings == RaySettings.parse(
        {"engines": ENGINES.split(","), "open_to_all": True, "replicas": 3, "max_wait_ratio": 0.0}
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "engines"),
        ({"engines": ""}, "length >= 1"),
        ({**OPEN, "engines": "http://h:1/x"}, "without a path"),
        ({**OPEN, "engines": "http://h:1,http://h:1"}, "occurs twice"),
        ({**OPEN, "replica": 2}, "unknown field `replica`"),
        ({**OPEN, "replicas": 0}, ">= 1"),
        ({**OPEN, "replicas": "two"}, "int"),
        ({"engines": ENGINES}, "everyone who reaches Serve's port"),
        ({**OPEN, "api_keys": "/no/such/file"}, "/no/such/file"),
        ({**OPEN, "policies": "/no/such/file"}, "/no/such/file"),
        ({**OPEN, "kv_events": "h:1=tcp://h:2"}, "is not one of"),
        ({**OPEN, "admin_port": 1, "admin_host": "0.0.0.0"}, "lets everyone read"),
    ],
)
def test_wrong_arguments_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        RaySettings.parse(given)
    assert message in str(error.value)


def test_request_policies_need_a_single_replica(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text("[tenant-quotas]\nmax_concurrent = 1\n[round-robin]\n")
    given = {**OPEN, "policies": str(path)}
    with pytest.raises(ConfigError, match="tenant-quotas: each replica") as error:
        RaySettings.parse(given)
    assert error.value.hint is not None and "replicas=1" in error.value.hint
    policies = RaySettings.parse({**given, "replicas": 1}).read_policies()
    assert [policy.spec.name for policy in policies.requests] == ["tenant-quotas"]
    path.write_text("[round-robin]\n[fairness]\nby = 'sessions'\n[thunderagent]\n")
    assert RaySettings.parse(given).replicas == 2
    with pytest.raises(ConfigError, match="would admit none"):
        RaySettings.parse({**given, "max_wait_ratio": 0})


def test_counts_of_replicas_are_shown_with_the_owners() -> None:
    owner, replica = GatewayMetrics(), GatewayMetrics()
    owner.placements.labels("e0", "space").inc(2)
    replica.placements.labels("e0", "origin").inc(3)
    replica.first_byte_s.observe(0.02)
    owner.replicas = lambda: {"r1": replica.text().decode(), "r2": replica.text().decode()}
    families = {each.name: each for each in text_string_to_metric_families(owner.text().decode())}
    samples = families["holdfast_gateway_placements"].samples
    found = {(s.labels.get("replica"), s.labels["reason"]): s.value for s in samples}
    assert found[None, "space"] == 2
    assert found["r1", "origin"] == found["r2", "origin"] == 3
    counts = [
        s
        for s in families["holdfast_gateway_first_byte_seconds"].samples
        if s.name.endswith("_count")
    ]
    assert {s.labels.get("replica"): s.value for s in counts} == {None: 0, "r1": 1, "r2": 1}
    names = [line.split()[2] for line in owner.text().decode().splitlines() if "# TYPE" in line]
    assert len(names) == len(set(names))
