"""Copies are enabled and disabled by their net benefit."""

from __future__ import annotations

from holdfast.predict.transfer_ledger import TransferAccount, TransferLedger

WINDOW = 128
FIRST_DISABLED = 256


def turns(
    ledger: TransferLedger, num_turns: int, seconds_each: float = 1.0
) -> TransferAccount | None:
    account = None
    for _ in range(num_turns):
        ledger.now_s = getattr(ledger, "now_s", 0.0) + seconds_each  # type: ignore[attr-defined]
        account = ledger.turn_arrived(ledger.now_s) or account  # type: ignore[attr-defined]
    return account


def test_loads_slower_than_computing_disable_copies() -> None:
    ledger = TransferLedger()
    ledger.observe_loads(3, saved_s=1.0, loading_s=2.0)
    account = turns(ledger, WINDOW)
    assert not ledger.is_enabled
    assert account is not None and account.num_loads == 3 and account.net_benefit_s == -1.0


def test_loads_that_save_more_than_copies_cost_keep_them() -> None:
    ledger = TransferLedger()
    ledger.observe_loads(1, saved_s=10.0, loading_s=2.0)
    ledger.observe_stall(5.0)
    assert turns(ledger, WINDOW) is None
    assert ledger.is_enabled


def test_stalls_for_stores_without_loads_disable_copies() -> None:
    ledger = TransferLedger()
    ledger.observe_stall(0.05 * WINDOW)
    turns(ledger, WINDOW)
    assert not ledger.is_enabled


def test_stall_within_noise_is_ignored() -> None:
    ledger = TransferLedger()
    ledger.observe_stall(0.01 * WINDOW)
    turns(ledger, WINDOW)
    assert ledger.is_enabled


def test_copies_stay_enabled_before_the_tier_is_needed() -> None:
    ledger = TransferLedger()
    ledger.observe_declined()
    turns(ledger, 3 * WINDOW)
    assert ledger.is_enabled


def test_copies_disabled_when_most_turns_decline() -> None:
    ledger = TransferLedger()
    for _ in range(WINDOW):
        ledger.observe_declined()
        turns(ledger, 1)
    assert not ledger.is_enabled


def disabled_turns(ledger: TransferLedger) -> int:
    """Turns until copies are enabled again."""
    num_turns = 0
    while not ledger.is_enabled:
        turns(ledger, 1)
        num_turns += 1
    return num_turns


def test_failed_trials_double_disabled_turns_up_to_a_limit() -> None:
    ledger = TransferLedger()
    counts = []
    for _ in range(7):
        ledger.observe_loads(1, saved_s=0.0, loading_s=1.0)
        turns(ledger, WINDOW)
        counts.append(disabled_turns(ledger))
    assert counts == [FIRST_DISABLED, 512, 1024, 2048, 4096, 8192, 8192]


def test_successful_trial_reported_and_resets_disabled_turns() -> None:
    ledger = TransferLedger()
    ledger.observe_loads(1, saved_s=0.0, loading_s=1.0)
    turns(ledger, WINDOW)
    disabled_turns(ledger)
    ledger.observe_loads(1, saved_s=2.0, loading_s=1.0)
    account = turns(ledger, WINDOW)
    assert account is not None and account.net_benefit_s == 1.0
    assert ledger.is_enabled and ledger.disabled_turns == FIRST_DISABLED
