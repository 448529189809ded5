"""The statements as SQL: `shared.sql` has what both engines read, `sqlite.sql` and `postgres.sql` what each reads in
its own way. `Statements` says which there are; each is the text that the engine's driver is given.

A file has each under its heading, `-- name --`, with comments that say why below it. A value stands as `:name`, as
`sqlite3` and `psql` have it, so that a statement can be pasted into either. Each driver has its own mark for a value;
it is put there once, when the engine's module is loaded, and nothing else is changed.
"""

import re
from importlib.resources import files

from msgspec import Struct

_STATEMENT = re.compile(r"^-- (\w+)( \(row\))? --\n(.*?);$", re.MULTILINE | re.DOTALL)
_VALUE = re.compile(r"(?<!:):([a-z_]+)")
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)


class Statements(Struct, frozen=True, kw_only=True):
    """Values are given by their names; to those marked `(row)` as a row, in the order in which they stand there."""

    insert_transfer: str
    transfer: str
    all_transfers: str
    account_transfers: str
    usage: str
    usage_by_key: str
    activity: str
    insert_hold: str
    update_hold: str
    hold: str
    all_holds: str
    account_orders: str
    generation: str
    pending_workers: str
    count_not_ended: str
    held_now: str
    is_question_due: str
    key_use: str
    put_key_use: str
    forget_key_uses: str
    kept_answer: str
    put_answer: str
    forget_answers: str
    balance: str
    all_balances: str
    insert_balance: str
    update_balance: str
    allowance: str
    all_allowances: str
    insert_allowance: str
    update_allowance: str
    drop_allowance: str
    not_served_any_more: str
    insert_account: str
    accounts: str
    account_named: str
    insert_key: str
    keys: str
    key_of_digest: str
    key_of_id: str
    change_key: str
    insert_management_key: str
    management_keys: str
    management_key_of_digest: str
    revoke_management_key: str
    published_plans: str
    drop_published_plans: str
    publish_plans: str
    revision: str
    bump_revision: str
    kept_prices: str
    claim_prices: str
    keep_prices: str
    insert_charged_fare: str
    all_charged_fares: str
    untold_since: str
    is_any_loose: str
    loose_of_requests: str
    loose_events_of_run: str
    bundle: str
    bundle_run: str
    insert_charge: str
    adopt_charge: str
    change_charge: str
    due_charges: str
    is_run_charge_due: str
    all_charges: str
    counted_events: str
    unfinished_orders: str
    insert_run: str
    run_named: str
    change_run: str
    tell_run: str
    live_run_workers: str
    note_bill: str
    bill_noted: str
    billed_events: str
    push_item: str
    last_item: str
    count_items: str
    items_forward: str
    items_backward: str
    size_of_items_forward: str
    size_of_items_backward: str
    put_record: str
    record: str
    records: str
    add_line: str
    lines: str
    runs_to_forget: str
    forget_items: str
    forget_records: str
    forget_lines: str
    forget_charges: str
    forget_run: str
    transfers_of: str
    holds_of: str
    lock_holds: str
    lock_balances: str
    lock_allowances: str
    holds_in: str
    holds_not_ended: str
    open_orphans: str
    claim_questions: str
    take_up_runs: str
    runs_forward: str
    runs_backward: str
    count_runs: str
    item_outcomes: str


def load(own: str, value: str, value_of_row: str) -> Statements:
    """The statements of the engine whose own ones are in the file `own`.

    `value` is how its driver marks a value, with `\\1` where the name stands; `value_of_row`, the next value of a row.

    Raises:
        ValueError: a name stands twice.
        TypeError: one is missing, or `Statements` does not have it.
    """
    found: dict[str, str] = {}
    for file in ("shared.sql", own):
        text = files(__name__).joinpath(file).read_text(encoding="utf-8")
        for name, is_of_row, body in _STATEMENT.findall(text):
            if name in found:
                raise ValueError(f"the statement {name} stands twice")
            found[name] = _VALUE.sub(value_of_row if is_of_row else value, _COMMENT.sub("", body))
    return Statements(**found)
