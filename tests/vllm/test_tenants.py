"""Tenants' weights in vLLM's own scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.vllm.conftest import RigMaker

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("weight", [1, 3])
def test_weights_share_the_engine(make_rig: RigMaker, weight: int) -> None:
    """Two tenants flood an engine that fits one prompt at a time."""
    settings = {"tenant_weights": f"gold={weight}", "max_wait_ratio": 100.0}
    rig = make_rig(12, settings=settings)
    for number in range(4):  # costs are learned
        rig.turn(f"first {number}", f"{number}bcdefg")
    names = []
    for number in range(12):
        for tenant in ("gold", "plain"):
            names.append(f"{tenant} {number}")
            rig.send(names[-1], f"{tenant[0]}{number:x}cdefgh", tenant=tenant)
    rig.finish()
    order = [name.split()[0] for name in rig.started if name in names]
    first = order[:12]
    assert abs(first.count("gold") - 12 * weight / (weight + 1)) <= 2


def test_sessions_of_one_tenant_take_turns(make_rig: RigMaker) -> None:
    order = {}
    for fairness in ("tenants", "sessions"):
        rig = make_rig(12, settings={"fairness": fairness, "max_wait_ratio": 100.0})
        for number in range(4):
            rig.turn(f"first {number}", f"{number}bcdefg")
        names = [f"many {n}" for n in range(6)] + ["one 0"]
        for number, name in enumerate(names):
            rig.send(name, f"{number}CDEFGHI", session_id=name.split()[0])
        rig.finish()
        order[fairness] = [name for name in rig.started if name in names].index("one 0")
    assert order["tenants"] == 6 and order["sessions"] <= 2
