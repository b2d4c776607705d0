"""The proxy's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast.mcp_proxy.proxy import ToolProxy

__all__ = ["start_metrics"]


def start_metrics(proxy: ToolProxy, port: int) -> int:
    """Serve a proxy's counts on the loopback address, in a thread; returns the port.

    Raises:
        OSError: The port cannot be listened on.
    """
    registry = CollectorRegistry()
    registry.register(_Counts(proxy))
    server, _ = start_http_server(port, "127.0.0.1", registry)
    return int(server.server_port)


class _Counts(Collector):
    def __init__(self, proxy: ToolProxy) -> None:
        self._proxy = proxy

    def collect(self) -> Iterator[Metric]:
        calls = self._proxy.call_counts
        yield GaugeMetricFamily(
            "holdfast_mcp_sessions", "Sessions that are open.", self._proxy.num_sessions
        )
        for name, help_text, value in (
            ("calls", "Tool calls of clients.", calls.calls),
            ("answered_calls", "Tool calls answered from calls.", calls.answered),
            ("saved_seconds", "What answered calls took when they were made.", calls.saved_s),
            ("changes", "Tool calls that may have changed something.", calls.changes),
            ("outdated_results", "Results dropped as a file had changed.", calls.outdated),
        ):
            yield CounterMetricFamily(f"holdfast_mcp_{name}", help_text, value)
        actions = CounterMetricFamily(
            "holdfast_mcp_policy_actions",
            "What call policies did: answered; used, late, wasted (early calls); failed.",
            labels=["policy", "action"],
        )
        for labels, count in sorted(self._proxy.actions.items()):
            actions.add_metric(labels, count)
        yield actions
        speculated = self._proxy.early_counts
        if speculated is None:
            return
        outcomes = CounterMetricFamily(
            "holdfast_mcp_early_calls",
            "Early calls by outcome: used, late (asked for while on their way), wasted.",
            labels=["outcome"],
        )
        for outcome in ("used", "late", "wasted"):
            outcomes.add_metric([outcome], getattr(speculated, outcome))
        yield outcomes
        for name, help_text, value in (
            ("predicted_calls", "Calls likely enough to be made early.", speculated.predicted),
            ("started_calls", "Calls made early.", speculated.started),
            ("early_saved_seconds", "Time clients did not wait.", speculated.saved_s),
            ("wasted_seconds", "Server time of wasted early calls.", speculated.wasted_s),
        ):
            yield CounterMetricFamily(f"holdfast_mcp_{name}", help_text, value)
