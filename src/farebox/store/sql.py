"""The statements, and how rows become values. Columns stand in the order of the dataclasses' fields."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from msgspec.structs import astuple

from farebox.core.charges import Charge
from farebox.core.ledger import (
    FARES,
    FIRST_CALLER_ACCOUNT,
    Balance,
    ChargedFare,
    HoldRow,
    KeptAnswer,
    KeyUse,
    Transfer,
)
from farebox.core.questions import FURTHEST_US

Row = Sequence[Any]

_TRANSFER = (
    "id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,"
    " event_price_nanos, over_hold_nanos, note"
)
_HOLD = (
    "id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,"
    " generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,"
    " charge_times"
)
_KEY_USE = "account_id, key_digest, order_digest, hold_id, created_us"
_ANSWER = "hold_id, content_type, body"
_CHARGED_FARE = "transfer_id, charge_to, count, charge_id"
_CHARGE = "id, charge_to, count, window_us, done, state, said, ended_us"
_BALANCE = "account_id, credits_nanos, debits_nanos, pending_nanos, limit_nanos, overdrawn_nanos"
_ACCOUNT = "a.id, a.name, a.plan, a.created_us"
_KEY = "k.id, k.account_id, k.label, k.digest, k.hint, k.created_us, k.revoked_us"


def marks(columns: str) -> str:
    """A question mark for each column."""
    return ", ".join("?" for _ in columns.split(","))


INSERT_TRANSFER = f"INSERT INTO transfer ({_TRANSFER}) VALUES ({marks(_TRANSFER)})"
TRANSFERS_OF = f"SELECT {_TRANSFER} FROM transfer WHERE id IN (SELECT value FROM json_each(?))"
ALL_TRANSFERS = f"SELECT {_TRANSFER} FROM transfer ORDER BY id"
ACCOUNT_TRANSFERS = f"""
SELECT {_TRANSFER} FROM transfer WHERE debit_account_id = :account
UNION ALL
SELECT {_TRANSFER} FROM transfer WHERE credit_account_id = :account AND kind IN ('top-up', 'adjustment')
ORDER BY created_us, id
"""
USAGE = f"""
SELECT CAST(coalesce(sum(t.amount_nanos), 0) AS BIGINT) FROM transfer t JOIN hold h ON h.id = t.hold_id
WHERE t.debit_account_id = :account AND t.credit_account_id = {FARES} AND t.cost IS NOT NULL AND t.created_us >= :since
AND (CAST(:key AS BIGINT) IS NULL OR h.key_id = :key)
"""

INSERT_HOLD = f"INSERT INTO hold ({_HOLD}) VALUES ({marks(_HOLD)})"
UPDATE_HOLD = """
UPDATE hold SET state = ?, generation_id = ?, served_model = ?, prompt_tokens = ?, answer_tokens = ?, reason = ?,
ended_us = ?, asks = ?, ask_us = ? WHERE id = ?
"""
HOLDS_OF = f"SELECT {_HOLD} FROM hold WHERE id IN (SELECT value FROM json_each(?))"
LOCK_HOLDS = f"{HOLDS_OF} /*LOCK id*/"
HOLDS_IN = f"""
SELECT {_HOLD} FROM hold WHERE state IN (SELECT value FROM json_each(:states))
AND (CAST(:account AS BIGINT) IS NULL OR account_id = :account) ORDER BY id
"""
ALL_HOLDS = f"SELECT {_HOLD} FROM hold ORDER BY id"
# `ended_us IS NULL` says no more than the state does, but it is what the index of holds that have not ended is made by.
PENDING_WORKERS = "SELECT DISTINCT worker FROM hold WHERE ended_us IS NULL AND state = 'pending'"
OPEN_ORPHANS = f"""
UPDATE hold SET state = 'open', reason = 'the process that served it has gone',
ask_us = CASE WHEN generation_id IS NOT NULL THEN 0 END
WHERE ended_us IS NULL AND state = 'pending' AND worker IN (SELECT value FROM json_each(?)) RETURNING {_HOLD}
"""
COUNT_NOT_ENDED = """
SELECT count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'open' AND ask_us IS NOT NULL),
count(*) FILTER (WHERE state = 'open' AND ask_us IS NULL) FROM hold WHERE ended_us IS NULL
"""

GENERATION = f"""
SELECT {_HOLD} FROM hold WHERE generation_id = ? AND account_id = ? ORDER BY id DESC LIMIT 1
"""

# One statement a key: a batch has few, and the key is the primary one.
KEY_USE = f"SELECT {_KEY_USE} FROM key_use WHERE account_id = ? AND key_digest = ?"
PUT_KEY_USE = f"""
INSERT INTO key_use ({_KEY_USE}) VALUES ({marks(_KEY_USE)}) ON CONFLICT (account_id, key_digest) DO UPDATE
SET order_digest = excluded.order_digest, hold_id = excluded.hold_id, created_us = excluded.created_us
"""
PUT_ANSWER = f"""
INSERT INTO kept_answer ({_ANSWER}) VALUES ({marks(_ANSWER)}) ON CONFLICT (hold_id) DO UPDATE
SET content_type = excluded.content_type, body = excluded.body
"""
ANSWER = f"SELECT {_ANSWER} FROM kept_answer WHERE hold_id = ?"
FORGET_ANSWERS = "DELETE FROM kept_answer WHERE hold_id NOT IN (SELECT hold_id FROM key_use WHERE created_us >= ?)"
FORGET_KEY_USES = "DELETE FROM key_use WHERE created_us < ?"

_IS_DUE = f"(ask_us <= :now OR ask_us > :now + {FURTHEST_US}) AND state = 'open'"
IS_QUESTION_DUE = f"SELECT 1 FROM hold WHERE {_IS_DUE} LIMIT 1"
CLAIM_QUESTIONS = f"""
UPDATE hold SET ask_us = :until WHERE id IN (
    SELECT id FROM hold WHERE {_IS_DUE} ORDER BY ask_us LIMIT :most /*LOCK FREE*/
) RETURNING {_HOLD}
"""

INSERT_CHARGED_FARE = f"INSERT INTO charged_fare ({_CHARGED_FARE}) VALUES ({marks(_CHARGED_FARE)})"
ALL_CHARGED_FARES = f"SELECT {_CHARGED_FARE} FROM charged_fare"
INSERT_CHARGE = f"INSERT INTO charge ({_CHARGE}) VALUES ({marks(_CHARGE)})"
ADOPT_CHARGE = f"{INSERT_CHARGE} ON CONFLICT DO NOTHING"
DUE_CHARGES = f"SELECT {_CHARGE} FROM charge WHERE state = 'due' ORDER BY id"
HOLD_OF_H = ", ".join(f"h.{column.strip()}" for column in _HOLD.split(","))
ALL_CHARGES = f"SELECT {_CHARGE} FROM charge ORDER BY id"

BALANCES = f"SELECT {_BALANCE} FROM balance WHERE account_id IN (SELECT value FROM json_each(?))"
LOCK_BALANCES = f"{BALANCES} /*LOCK account_id*/"
ALL_BALANCES = f"SELECT {_BALANCE} FROM balance ORDER BY account_id"
UPDATE_BALANCE = """
UPDATE balance SET credits_nanos = ?, debits_nanos = ?, pending_nanos = ?, overdrawn_nanos = ? WHERE account_id = ?
"""
INSERT_BALANCE = f"INSERT INTO balance ({_BALANCE}) VALUES (?, 0, 0, 0, ?, 0)"

INSERT_ACCOUNT = "INSERT INTO account (name, plan, created_us) VALUES (?, ?, ?) RETURNING id"
ACCOUNTS = f"SELECT {_ACCOUNT} FROM account a WHERE a.id >= {FIRST_CALLER_ACCOUNT} ORDER BY a.id"
ACCOUNT_NAMED = f"SELECT {_ACCOUNT} FROM account a WHERE a.name = ? AND a.id >= {FIRST_CALLER_ACCOUNT}"

INSERT_KEY = "INSERT INTO api_key (account_id, label, digest, hint, created_us) VALUES (?, ?, ?, ?, ?) RETURNING id"
KEYS = f"SELECT {_KEY} FROM api_key k WHERE k.account_id = ? ORDER BY k.id"
KEY_OF_DIGEST = f"SELECT {_ACCOUNT}, {_KEY} FROM api_key k JOIN account a ON a.id = k.account_id WHERE k.digest = ?"
KEY_OF_ID = f"SELECT {_ACCOUNT}, {_KEY} FROM api_key k JOIN account a ON a.id = k.account_id WHERE k.id = ?"
REVOKE_KEY = "UPDATE api_key SET revoked_us = ? WHERE id = ? AND revoked_us IS NULL"

REVISION = "SELECT value FROM directory_revision"
BUMP_REVISION = "UPDATE directory_revision SET value = value + 1"


def transfer_row(transfer: Transfer) -> Row:
    values = astuple(transfer)
    if transfer.cost is None:
        return values
    return (*values[:_COST], str(transfer.cost), *values[_COST + 1 :])


def transfer_from(row: Row) -> Transfer:
    values = list(row)
    values[_COST] = None if row[_COST] is None else Decimal(row[_COST])
    return Transfer(*values)


def hold_row(hold: HoldRow) -> Row:
    return astuple(hold)


def hold_from(row: Row) -> HoldRow:
    values = list(row)
    values[_STREAMED] = bool(row[_STREAMED])
    return HoldRow(*values)


def hold_changes(h: HoldRow) -> Row:
    return (
        h.state,
        h.generation_id,
        h.served_model,
        h.prompt_tokens,
        h.answer_tokens,
        h.reason,
        h.ended_us,
        h.asks,
        h.ask_us,
        h.id,
    )


def key_use_row(use: KeyUse) -> Row:
    return astuple(use)


def answer_row(answer: KeptAnswer) -> Row:
    return astuple(answer)


def charged_fare_row(fare: ChargedFare) -> Row:
    return astuple(fare)


def charge_from(row: Row) -> Charge:
    return Charge(*row)


def balance_changes(b: Balance) -> Row:
    return (b.credits_nanos, b.debits_nanos, b.pending_nanos, b.overdrawn_nanos, b.account_id)


_STREAMED = HoldRow.__struct_fields__.index("streamed")
_COST = Transfer.__struct_fields__.index("cost")
