"""When copies to a lower tier count as paying."""

from __future__ import annotations

from holdfast.predict.transfer_ledger import TransferAccount, TransferLedger

WINDOW = 128
FIRST_REST = 256


def turns(
    ledger: TransferLedger, num_turns: int, seconds_each: float = 1.0
) -> TransferAccount | None:
    account = None
    for _ in range(num_turns):
        ledger.now_s = getattr(ledger, "now_s", 0.0) + seconds_each  # type: ignore[attr-defined]
        account = ledger.turn_arrived(ledger.now_s) or account  # type: ignore[attr-defined]
    return account


def test_loads_that_take_longer_than_they_save_end_copying() -> None:
    ledger = TransferLedger()
    ledger.loaded(3, saved_s=1.0, loading_s=2.0)
    account = turns(ledger, WINDOW)
    assert not ledger.is_paying
    assert account is not None and account.num_loads == 3 and account.net_s == -1.0


def test_loads_that_save_more_than_all_copies_take_go_on() -> None:
    ledger = TransferLedger()
    ledger.loaded(1, saved_s=10.0, loading_s=2.0)
    ledger.stalled(5.0)
    assert turns(ledger, WINDOW) is None
    assert ledger.is_paying


def test_waiting_for_stores_that_nobody_loads_ends_copying() -> None:
    ledger = TransferLedger()
    ledger.stalled(0.05 * WINDOW)
    turns(ledger, WINDOW)
    assert not ledger.is_paying


def test_a_wait_within_the_noise_of_steps_says_nothing() -> None:
    ledger = TransferLedger()
    ledger.stalled(0.01 * WINDOW)
    turns(ledger, WINDOW)
    assert ledger.is_paying


def test_a_tier_that_is_not_needed_yet_goes_on_being_filled() -> None:
    ledger = TransferLedger()
    ledger.declined()
    turns(ledger, 3 * WINDOW)
    assert ledger.is_paying


def test_copies_that_hardly_any_turn_wants_end() -> None:
    ledger = TransferLedger()
    for _ in range(WINDOW):
        ledger.declined()
        turns(ledger, 1)
    assert not ledger.is_paying


def rest(ledger: TransferLedger) -> int:
    """Turns until copies are made again."""
    num_turns = 0
    while not ledger.is_paying:
        turns(ledger, 1)
        num_turns += 1
    return num_turns


def test_each_failed_trial_doubles_the_rest_up_to_a_limit() -> None:
    ledger = TransferLedger()
    rests = []
    for _ in range(7):
        ledger.loaded(1, saved_s=0.0, loading_s=1.0)
        turns(ledger, WINDOW)
        rests.append(rest(ledger))
    assert rests == [FIRST_REST, 512, 1024, 2048, 4096, 8192, 8192]


def test_a_trial_that_pays_is_told_and_begins_anew_with_short_rests() -> None:
    ledger = TransferLedger()
    ledger.loaded(1, saved_s=0.0, loading_s=1.0)
    turns(ledger, WINDOW)
    rest(ledger)
    ledger.loaded(1, saved_s=2.0, loading_s=1.0)
    account = turns(ledger, WINDOW)
    assert account is not None and account.net_s == 1.0
    assert ledger.is_paying and ledger.rest_turns == FIRST_REST
