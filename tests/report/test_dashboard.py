"""Dashboards and alert rules name metrics that exist; the page of metrics is generated."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from holdfast.cli.main import cli
from holdfast.core.metric_table import METRICS, metrics_page
from holdfast.errors import HoldfastError
from holdfast.report.dashboard import ALERTS, PANELS, alert_rules, grafana_dashboard

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"\bholdfast_\w+")
LABELS = {one.sample: {*one.labels, "instance", "le"} for one in METRICS}
EXPRESSIONS = [
    *(query.expression for panel in PANELS for query in panel.queries),
    *(alert.expression for alert in ALERTS),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_queries_name_metrics_and_labels_that_exist(expression: str) -> None:
    names = NAME.findall(expression)
    assert names
    for name in names:
        assert name in LABELS
    grouped = re.findall(r"by \((\w+)\)", expression)
    selected = re.findall(r"(\w+)=~?\"", expression)
    assert {*grouped, *selected} <= set.union(*(LABELS[name] for name in names))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_counters_are_drawn_by_their_increase(expression: str) -> None:
    counters = {one.sample for one in METRICS if one.kind == "counter"}
    rare = {"holdfast_guard_trips_total", "holdfast_fallbacks_total", "holdfast_alarms_total"}
    rare |= {"holdfast_oversized_requests_total"}
    for name in set(NAME.findall(expression)) & counters - rare:
        assert f"rate({name}" in expression or f"increase({name}" in expression


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_legends_use_labels_that_the_query_keeps(panel: object) -> None:
    for query in panel.queries:  # type: ignore[attr-defined]
        for label in re.findall(r"{{(\w+)}}", query.legend):
            assert f"by ({label})" in query.expression


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads(grafana_dashboard())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) == len(PANELS)
    spots = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(spots) == len(panels)


def test_the_page_of_metrics_is_generated() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_page()


def test_files_are_written(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["dashboards", "--output", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "new" / "holdfast.json").read_bytes() == grafana_dashboard()
    assert (tmp_path / "new" / "holdfast-alerts.yaml").read_bytes() == alert_rules()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HoldfastError, match="cannot be written"):
        CliRunner().invoke(
            cli, ["dashboards", "--output", str(tmp_path / "file" / "x")], catch_exceptions=False
        )


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_accepts_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_bytes(alert_rules())
    subprocess.run(["promtool", "check", "rules", str(tmp_path / "rules.yaml")], check=True)
