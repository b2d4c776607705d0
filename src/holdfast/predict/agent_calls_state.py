"""What is known about agents' calls, as bytes: at most 20 KB a tenant."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Final

import msgspec

from holdfast.predict.agent_calls import AgentCalls, Workload
from holdfast.predict.agent_transitions import TransitionRow
from holdfast.predict.step_intervals import StepIntervals

__all__ = ["MAX_TENANT_BYTES", "decode_calls", "encode_calls"]

MAX_TENANT_BYTES: Final = 20_000
"""Most bytes of one tenant; what was called longest ago is left out beyond them."""

_SCHEMA: Final = "agent-calls/1"
_UNIT: Final = 64.0  # of weights
_Loss = tuple[float, int]


class _Tenant(msgspec.Struct, array_like=True):
    """One tenant, agents by their place in `agents`, weights in units of 1/64.

    Attributes:
        number: See `tenant_number`.
        interval_s: See `Workload`.
        losses: Bits and count, without and with a context.
        new_followers: See `AgentTransitions`.
        agents: Their numbers, the most recently called first.
        shares: Their weights among all calls.
        rows: A context and what followed it: the context's length, its agents, then agent and
            weight in turn.
        spread: See `StepIntervals`.
    """

    number: int
    interval_s: float
    losses: tuple[_Loss, _Loss]
    new_followers: tuple[float, float]
    agents: list[int]
    shares: list[int]
    rows: list[list[int]]
    spread: float = 1.0


class _State(msgspec.Struct):
    """All tenants, the most recently active first."""

    schema: str
    tenants: list[_Tenant]


def encode_calls(calls: AgentCalls) -> bytes:
    """Encode what is known for `decode_calls`. Pure; any thread may call it.

    Positions of workflows and the times of single agents are left out: they are soon known anew.
    """
    tenants = []
    for number, workload in reversed(calls.items()):
        num_rows = len(workload.order)
        tenant = _tenant(number, workload, num_rows)
        while num_rows and len(msgspec.msgpack.encode(tenant)) > MAX_TENANT_BYTES:
            num_rows //= 2
            tenant = _tenant(number, workload, num_rows)
        tenants.append(tenant)
    return msgspec.msgpack.encode(_State(_SCHEMA, tenants))


def decode_calls(data: bytes) -> AgentCalls:
    """What `encode_calls` encoded.

    Raises:
        ValueError: `data` is not such an encoding.
    """
    state = msgspec.msgpack.decode(data, type=_State)
    if state.schema != _SCHEMA:
        raise ValueError(f"not agents' calls: schema {state.schema!r}")
    calls = AgentCalls()
    for tenant in reversed(state.tenants):
        calls.put(tenant.number, _workload(tenant))
    return calls


def _tenant(number: int, workload: Workload, num_rows: int) -> _Tenant:
    """The tenant with its most recently observed rows, and the agents in them."""
    order = workload.order
    recent = list(order.rows())[-num_rows:] if num_rows else []
    rows = [(context, dict(row.weights)) for context, row in reversed(recent)]
    shares = dict(order.shares())
    places: dict[int, int] = {}
    encoded = []
    for context, weights in rows:
        for agent in (*context, *weights):
            places.setdefault(agent, len(places))
        row = [len(context), *(places[agent] for agent in context)]
        for agent, weight in weights.items():
            row += [places[agent], max(round(weight * _UNIT), 1)]
        encoded.append(row)
    alone, blended = order.losses
    return _Tenant(
        number,
        workload.interval_s,
        ((alone.loss_bits, alone.num_scored), (blended.loss_bits, blended.num_scored)),
        order.new_followers,
        list(places),
        [round(shares.get(agent, 0.0) * _UNIT) for agent in places],
        encoded,
        workload.intervals.spread,
    )


def _workload(tenant: _Tenant) -> Workload:
    if not (0.0 <= tenant.interval_s < math.inf and min(tenant.new_followers) > 0.0):
        raise ValueError(f"not agents' calls: interval {tenant.interval_s!r}")
    if not 0.0 <= tenant.spread < math.inf:
        raise ValueError(f"not agents' calls: spread {tenant.spread!r}")
    workload = Workload()
    workload.intervals = StepIntervals(tenant.interval_s, tenant.spread)
    agents = tenant.agents
    rows = []
    for row in reversed(tenant.rows):
        if not row or not 1 <= row[0] < len(row) or (len(row) - 1 - row[0]) % 2:
            raise ValueError("not agents' calls: a row is incomplete")
        following = row[1 + row[0] :]
        if not all(0 <= place < len(agents) for place in (*row[1 : 1 + row[0]], *following[::2])):
            raise ValueError("not agents' calls: a row names an unknown agent")
        context = tuple(agents[place] for place in row[1 : 1 + row[0]])
        pairs = list(pairwise(following))[::2]
        rows.append((context, {agents[place]: weight / _UNIT for place, weight in pairs}))
    alone, blended = (TransitionRow({}, bits, number) for bits, number in tenant.losses)
    shares = [(a, s / _UNIT) for a, s in zip(agents, tenant.shares, strict=True)]
    workload.order.restore(rows, reversed(shares), (alone, blended), tenant.new_followers)
    return workload
