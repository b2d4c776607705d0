"""Joins the counts of several processes in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

__all__ = ["merged_text"]

_REPLICA = "replica"


def merged_text(own: CollectorRegistry, replicas: Mapping[str, str]) -> bytes:
    """One process's metrics and those of others, each family once. Pure.

    Args:
        own: Metrics of this process.
        replicas: Metrics of the others by name, as text; the name becomes the label `replica`.
    """
    if not replicas:
        return generate_latest(own)
    families = {family.name: family for family in own.collect()}
    for replica, text in replicas.items():
        for family in text_string_to_metric_families(text):
            if family.name.endswith("_created"):
                continue
            merged = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            for sample in family.samples:
                labels = {**sample.labels, _REPLICA: replica}
                merged.add_sample(sample.name, labels, sample.value)
    registry = CollectorRegistry()
    registry.register(_Collected(families.values()))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
