"""The dashboard's queries and alert rules on a real Prometheus, with real engines under load."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboard_panels import evaluated
from live_fleet.prometheus import BINARY

pytestmark = [
    pytest.mark.engine,
    pytest.mark.server,
    pytest.mark.skipif(
        BINARY is None, reason="no program `prometheus`: apt-get install prometheus"
    ),
]


def test_every_panel_has_data_or_a_reason(tmp_path: Path) -> None:
    found, rules = evaluated(tmp_path, load_s=20.0)
    assert [(one.panel, one.legend) for one in found if one.verdict == "EMPTY"] == []
    assert {health for _, health, _ in rules} == {"ok"}
    assert sum(bool(one.lines) for one in found) > 0.7 * len(found)
