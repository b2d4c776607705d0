"""Trust in what tenants say about their pauses."""

from __future__ import annotations

from holdfast.predict.hint_trust import HintTrust


def test_tenant_is_trusted_at_first() -> None:
    assert HintTrust().trusts("new")


def test_false_hints_end_the_trust_of_their_tenant_only() -> None:
    trust = HintTrust()
    for _ in range(10):
        trust.observe("liar", told_s=1.0, predicted_s=50.0, actual_s=100.0)
        trust.observe("honest", told_s=90.0, predicted_s=50.0, actual_s=100.0)
    assert not trust.trusts("liar")
    assert trust.trusts("honest")


def test_hints_as_bad_as_predictions_are_still_used() -> None:
    trust = HintTrust()
    for _ in range(100):
        trust.observe("", told_s=10.0, predicted_s=1000.0, actual_s=100.0)
    assert trust.trusts("")


def test_trust_comes_back_with_true_hints() -> None:
    trust = HintTrust()
    for _ in range(20):
        trust.observe("", told_s=1.0, predicted_s=100.0, actual_s=100.0)
    assert not trust.trusts("")
    for _ in range(40):
        trust.observe("", told_s=100.0, predicted_s=100.0, actual_s=100.0)
    assert trust.trusts("")


def test_odd_times_are_no_error_and_memory_is_bounded() -> None:
    trust = HintTrust()
    for number in range(3000):
        trust.observe(str(number), 0.0, 0.0, 1e12)
    assert len(trust._errors) == 1024
