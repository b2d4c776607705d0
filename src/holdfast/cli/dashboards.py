"""`holdfast dashboards`: a Grafana dashboard and Prometheus alert rules."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.errors import ConfigError

__all__ = ["dashboards"]


@click.command()
@click.option(
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for the files; made if it is missing.",
)
def dashboards(output: Path) -> None:
    """Write holdfast.json for Grafana and holdfast-alerts.yaml for Prometheus."""
    from holdfast.report.dashboard import alert_rules, grafana_dashboard

    files = {"holdfast.json": grafana_dashboard(), "holdfast-alerts.yaml": alert_rules()}
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (output / name).write_bytes(content)
            click.echo(str(output / name))
    except OSError as error:
        raise ConfigError(
            f"{output} cannot be written: {error.strerror or error}",
            hint="give another directory with --output",
        ) from error
