"""The gateway's Prometheus metrics, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from holdfast.gateway.merged_metrics import merged_text
from holdfast.gateway.prompt_metrics import PromptMetrics

__all__ = ["GatewayMetrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0)


class GatewayMetrics:
    """Counts what the gateway does; labels have few values, none from clients.

    Attributes:
        registry: For the admin server.
        prompts: Of prompts.
        replicas: Gives the counts of replicas as text, where this gateway decides for some.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.answers = self._counter(
            "answers", "Answers sent, by engine (empty for refusals) and status class.", "status"
        )
        self.placements = self._counter(
            "placements", "Requests placed, by engine and reason.", "reason"
        )
        self._add_failures()
        self.policy_actions = Counter(
            "holdfast_gateway_policy_actions",
            "What request policies did: requests rewritten or refused, tool calls allowed, denied "
            "or asked about, failures (a policy that fails is off until a restart, or refuses if "
            "it is mandatory).",
            ["policy", "action"],
            registry=self.registry,
        )
        self._add_judging()
        self._add_replicas()
        self.prompts = PromptMetrics(self.registry)
        self.in_flight = self._gauge(
            "requests_in_flight", "Requests sent to an engine and not yet answered."
        )
        self.engines_up = self._gauge("engine_up", "1 while the engine answers, else 0.")
        self.held = self._gauge(
            "requests_held",
            "Requests that wait here because their engine has no space for their sessions.",
        )
        self.held_tokens = self._gauge(
            "held_tokens",
            "KV cache tokens that held requests would take from other sessions: demand beyond the "
            "engine, for autoscalers.",
        )
        self.held_s = self._histogram(
            "held_seconds", "Time that requests were held before they were sent."
        )
        self.decision_s = self._histogram(
            "decision_seconds",
            "Time from a request's last byte to its sending: reading, checking, placing.",
        )
        self.first_byte_s = self._histogram(
            "first_byte_seconds", "Time from a request's sending to the first byte of its answer."
        )

    def _add_failures(self) -> None:
        self.retries = self._counter(
            "retries", "Requests sent to another engine because this one could not be reached."
        )
        self.broken = self._counter(
            "broken_answers", "Answers that an engine began and did not finish."
        )
        self.disconnects = Counter(
            "holdfast_gateway_disconnects",
            "Clients that left before their answer ended; the engine was told.",
            registry=self.registry,
        )

    def _add_replicas(self) -> None:
        self.replicas: Callable[[], Mapping[str, str]] = dict
        self.placed_alone = Counter(
            "holdfast_gateway_placed_alone",
            "Requests that a replica placed by itself because the owner of placements was away.",
            registry=self.registry,
        )

    def _add_judging(self) -> None:
        self.unjudged = Counter(
            "holdfast_gateway_unjudged",
            "Tool calls kept from clients because they could not be judged: unreadable, or too "
            "long; answers cut because they could not be read.",
            ["reason"],
            registry=self.registry,
        )
        self.audit_lost = Counter(
            "holdfast_gateway_audit_lost",
            "Lines that the audit log could not take, for want of space, say.",
            registry=self.registry,
        )

    def text(self) -> bytes:
        """All counts in Prometheus' text format; a replica's have its name as a label."""
        return merged_text(self.registry, self.replicas())

    def watch_held(self, engine: str, held: Callable[[], tuple[int, int]]) -> None:
        """Ask for an engine's held requests and their tokens when they are read. Mutates."""
        self.held.labels(engine).set_function(lambda: held()[0])
        self.held_tokens.labels(engine).set_function(lambda: held()[1])

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(*_named(name, text, labels), registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(*_named(name, text), registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"holdfast_gateway_{name}", text, buckets=_SECONDS, registry=self.registry)


def _named(name: str, text: str, labels: Sequence[str] = ()) -> tuple[str, str, list[str]]:
    return f"holdfast_gateway_{name}", text, ["engine", *labels]
