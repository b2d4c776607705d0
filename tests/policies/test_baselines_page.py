"""docs/baselines.md names every published policy, its settings and how it differs."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from holdfast.policies import registry
from holdfast.policies.registry import policy_spec

PAGE = (Path(__file__).parents[2] / "docs" / "baselines.md").read_text()
PUBLISHED = [name for name, path in registry._BUILT_IN.items() if ".published." in path]


@pytest.mark.parametrize("name", PUBLISHED)
def test_row_has_source_settings_and_differences(name: str) -> None:
    spec = policy_spec(name)
    row, figures = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    assert spec.source in row and spec.differs in row
    assert spec.settings is not None
    fields = msgspec.structs.fields(spec.settings)
    assert re.findall(r"`(\w+=\S+)`", row) == [f"{f.name}={f.default}" for f in fields]
    assert figures.count(" | ") == 4


def test_every_variant_on_the_page_can_be_built() -> None:
    for variant in re.findall(r"`([\w-]+:\w+=[^`]+)`", PAGE):
        registry.check_deployable(variant)


def test_every_results_file_exists() -> None:
    results = Path(__file__).parents[2] / "benchmarks" / "results"
    named = set(re.findall(r"`([\w-]+\.(?:txt|md))`", PAGE))
    assert named and [name for name in named if not (results / name).is_file()] == []
