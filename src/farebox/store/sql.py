"""The statements, and how rows become values. Columns stand in the order of the dataclasses' fields."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
from msgspec.structs import astuple

from farebox.core.allowances import DAY_US, NO_LIMITS, Allowance, Limits, Slot
from farebox.core.books import FARES, FIRST_CALLER_ACCOUNT, Balance, ChargedFare, HoldRow, KeptAnswer, KeyUse, Transfer
from farebox.core.callers import Account, Key, PublishedPlans
from farebox.core.charges import Charge
from farebox.core.plans import Plan
from farebox.core.pricing import KeptPrices
from farebox.core.questions import FURTHEST_US

Row = Sequence[Any]

_TRANSFER = (
    "id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,"
    " event_price_nanos, over_hold_nanos, note"
)
_HOLD = (
    "id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,"
    " generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,"
    " charge_times, reserved_tokens"
)
_KEY_USE = "account_id, key_digest, order_digest, hold_id, created_us"
_ANSWER = "hold_id, content_type, body"
_CHARGED_FARE = "transfer_id, charge_to, count, charge_id"
_CHARGE = "id, charge_to, count, window_us, done, state, said, ended_us"
_BALANCE = "account_id, credits_nanos, debits_nanos, pending_nanos, limit_nanos, overdrawn_nanos"
_ALLOWANCE = (
    "owner, account_id, limits, pending_nanos, total_nanos, day_nanos, week_nanos, month_nanos, counted_us, at_once,"
    " minute"
)
_ACCOUNT = "a.id, a.name, a.plan, a.created_us, al.limits"
_KEY = (
    "k.id, k.account_id, k.label, k.digest, k.hint, k.created_us, k.revoked_us, k.disabled, k.expires_us, k.updated_us,"
    " kl.limits"
)
_LIMITS_A = "LEFT JOIN allowance al ON al.owner = 'account ' || a.id"
_LIMITS_K = "LEFT JOIN allowance kl ON kl.owner = 'key ' || k.id"
_MANAGEMENT_KEY = "id, label, digest, hint, account_id, created_us, revoked_us"


def marks(columns: str) -> str:
    """A question mark for each column."""
    return ", ".join("?" for _ in columns.split(","))


INSERT_TRANSFER = f"INSERT INTO transfer ({_TRANSFER}) VALUES ({marks(_TRANSFER)})"
TRANSFERS_OF = f"SELECT {_TRANSFER} FROM transfer WHERE id IN (SELECT value FROM json_each(?))"
ALL_TRANSFERS = f"SELECT {_TRANSFER} FROM transfer ORDER BY id"
ACCOUNT_TRANSFERS = f"""
SELECT {_TRANSFER} FROM transfer
WHERE debit_account_id = :account AND created_us >= :since AND created_us < :until
UNION ALL
SELECT {_TRANSFER} FROM transfer WHERE credit_account_id = :account AND kind IN ('top-up', 'adjustment')
AND created_us >= :since AND created_us < :until
ORDER BY created_us, id
"""
ACCOUNT_ORDERS = f"""
SELECT {_HOLD} FROM hold WHERE id IN (
    SELECT hold_id FROM transfer WHERE debit_account_id = :account AND created_us >= :since AND created_us < :until
)
"""
USAGE = f"""
SELECT CAST(coalesce(sum(t.amount_nanos), 0) AS BIGINT) FROM transfer t JOIN hold h ON h.id = t.hold_id
WHERE t.debit_account_id = :account AND t.credit_account_id = {FARES} AND t.cost IS NOT NULL AND t.created_us >= :since
AND (CAST(:key AS BIGINT) IS NULL OR h.key_id = :key)
"""

USAGE_BY_KEY = f"""
SELECT h.key_id, CAST(sum(t.amount_nanos) AS BIGINT), max(t.created_us) FROM transfer t JOIN hold h ON h.id = t.hold_id
WHERE t.debit_account_id = :account AND t.credit_account_id = {FARES} AND t.cost IS NOT NULL AND t.created_us >= :since
GROUP BY h.key_id
"""
ACTIVITY = f"""
SELECT t.created_us / {DAY_US} AS day, h.model, coalesce(h.served_model, h.model) AS served, count(*),
CAST(sum(t.amount_nanos) AS BIGINT), CAST(coalesce(sum(h.prompt_tokens), 0) AS BIGINT),
CAST(coalesce(sum(h.answer_tokens), 0) AS BIGINT)
FROM transfer t JOIN hold h ON h.id = t.hold_id
WHERE t.debit_account_id IN (
    SELECT id FROM account WHERE CAST(:account AS BIGINT) IS NULL OR id = :account
) AND t.created_us >= :since AND t.created_us < :until
AND t.credit_account_id = {FARES} AND t.cost IS NOT NULL AND (CAST(:key AS BIGINT) IS NULL OR h.key_id = :key)
GROUP BY 1, 2, 3 ORDER BY 1 DESC, 2, 3
"""

INSERT_HOLD = f"INSERT INTO hold ({_HOLD}) VALUES ({marks(_HOLD)})"
UPDATE_HOLD = """
UPDATE hold SET state = ?, generation_id = ?, served_model = ?, prompt_tokens = ?, answer_tokens = ?, reason = ?,
ended_us = ?, asks = ?, ask_us = ? WHERE id = ?
"""
HOLDS_OF = f"SELECT {_HOLD} FROM hold WHERE id IN (SELECT value FROM json_each(?))"
LOCK_HOLDS = f"{HOLDS_OF} /*LOCK id*/"
_IN_STATES = "state IN (SELECT value FROM json_each(:states)) ORDER BY id"
HOLDS_IN = f"SELECT {_HOLD} FROM hold WHERE {_IN_STATES}"
HOLDS_NOT_ENDED = f"SELECT {_HOLD} FROM hold WHERE ended_us IS NULL AND {_IN_STATES}"
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

UNTOLD_SINCE = """
SELECT min(t.created_us) FROM charged_fare f JOIN transfer t ON t.id = f.transfer_id
WHERE f.charge_id IS NULL OR f.charge_id IN (SELECT id FROM charge WHERE state = 'due')
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
FORGOTTEN_AT_ONCE = 10_000
FORGET_ANSWERS = """
DELETE FROM kept_answer WHERE hold_id IN (
    SELECT hold_id FROM kept_answer WHERE hold_id NOT IN (SELECT hold_id FROM key_use WHERE created_us >= ?) LIMIT ?
)
"""
FORGET_KEY_USES = """
DELETE FROM key_use WHERE (account_id, key_digest) IN (
    SELECT account_id, key_digest FROM key_use WHERE created_us < ? LIMIT ?
)
"""

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
ACCOUNTS = f"SELECT {_ACCOUNT} FROM account a {_LIMITS_A} WHERE a.id >= {FIRST_CALLER_ACCOUNT} ORDER BY a.id"
ACCOUNT_NAMED = f"SELECT {_ACCOUNT} FROM account a {_LIMITS_A} WHERE a.name = ? AND a.id >= {FIRST_CALLER_ACCOUNT}"

INSERT_KEY = "INSERT INTO api_key (account_id, label, digest, hint, created_us) VALUES (?, ?, ?, ?, ?) RETURNING id"
KEYS = f"SELECT {_KEY} FROM api_key k {_LIMITS_K} WHERE k.account_id = ? ORDER BY k.id"
_KEY_AND_ACCOUNT = (
    f"SELECT {_ACCOUNT}, {_KEY} FROM api_key k JOIN account a ON a.id = k.account_id {_LIMITS_A} {_LIMITS_K}"
)
KEY_OF_DIGEST = f"{_KEY_AND_ACCOUNT} WHERE k.digest = ?"
KEY_OF_ID = f"{_KEY_AND_ACCOUNT} WHERE k.id = ?"
CHANGE_KEY = "UPDATE api_key SET label = ?, revoked_us = ?, disabled = ?, expires_us = ?, updated_us = ? WHERE id = ?"

ALLOWANCES = f"SELECT {_ALLOWANCE} FROM allowance WHERE owner IN (SELECT value FROM json_each(?))"
LOCK_ALLOWANCES = f"{ALLOWANCES} /*LOCK owner*/"
ALL_ALLOWANCES = f"SELECT {_ALLOWANCE} FROM allowance ORDER BY owner"
INSERT_ALLOWANCE = f"INSERT INTO allowance ({_ALLOWANCE}) VALUES ({marks(_ALLOWANCE)})"
UPDATE_ALLOWANCE = """
UPDATE allowance SET pending_nanos = ?, total_nanos = ?, day_nanos = ?, week_nanos = ?, month_nanos = ?, counted_us = ?,
at_once = ?, minute = ? WHERE owner = ?
"""
DROP_ALLOWANCE = "DELETE FROM allowance WHERE owner = ?"
NOT_SERVED_ANY_MORE = "UPDATE allowance SET at_once = at_once - ? WHERE owner = ?"
HELD_NOW = """
SELECT CAST(coalesce(sum(amount_nanos), 0) AS BIGINT), count(*) FILTER (WHERE state = 'pending') FROM hold
WHERE ended_us IS NULL AND account_id = :account AND (CAST(:key AS BIGINT) IS NULL OR key_id = :key)
"""

INSERT_MANAGEMENT_KEY = (
    "INSERT INTO management_key (label, digest, hint, account_id, created_us) VALUES (?, ?, ?, ?, ?) RETURNING id"
)
MANAGEMENT_KEYS = f"SELECT {_MANAGEMENT_KEY} FROM management_key ORDER BY id"
MANAGEMENT_KEY_OF_DIGEST = f"SELECT {_MANAGEMENT_KEY} FROM management_key WHERE digest = ?"
REVOKE_MANAGEMENT_KEY = "UPDATE management_key SET revoked_us = ? WHERE id = ? AND revoked_us IS NULL"

PUBLISHED_PLANS = "SELECT plans, published_by, published_us FROM published_plans"
DROP_PUBLISHED_PLANS = "DELETE FROM published_plans"
PUBLISH_PLANS = "INSERT INTO published_plans (plans, published_by, published_us) VALUES (?, ?, ?)"

REVISION = "SELECT value FROM directory_revision"
BUMP_REVISION = "UPDATE directory_revision SET value = value + 1"


KEPT_PRICES = "SELECT bodies, read_us FROM price_list WHERE source = ? AND read_us > ?"
CLAIM_PRICES = """
INSERT INTO price_list (source, claimed_us) VALUES (:source, :until) ON CONFLICT (source) DO UPDATE
SET claimed_us = :until WHERE price_list.claimed_us <= :now OR price_list.claimed_us > :until
"""
KEEP_PRICES = """
INSERT INTO price_list (source, bodies, read_us, claimed_us) VALUES (?, ?, ?, 0) ON CONFLICT (source) DO UPDATE
SET bodies = excluded.bodies, read_us = excluded.read_us, claimed_us = 0
"""


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


def account_from(row: Row) -> Account:
    account_id, name, plan, created_us, limits = row
    return Account(account_id, name, plan, created_us, limits_from(limits))


def key_from(row: Row) -> Key:
    values = list(row)
    values[_DISABLED] = bool(row[_DISABLED])
    values[-1] = limits_from(row[-1])
    return Key(*values)


def account_and_key_from(row: Row) -> tuple[Account, Key]:
    return account_from(row[:_ACCOUNT_COLUMNS]), key_from(row[_ACCOUNT_COLUMNS:])


def key_changes(key: Key) -> Row:
    return (key.label, key.revoked_us, key.disabled, key.expires_us, key.updated_us, key.id)


def limits_from(text: str | None) -> Limits:
    return NO_LIMITS if text is None else _decode_limits(text)


def limits_text(limits: Limits) -> str:
    return msgspec.json.encode(limits).decode()


def allowance_from(row: Row) -> Allowance:
    values = list(row)
    values[_LIMITS] = _decode_limits(row[_LIMITS])
    values[-1] = _decode_minute(row[-1])
    return Allowance(*values)


def allowance_row(a: Allowance) -> Row:
    *counts, owner = allowance_changes(a)
    return (owner, a.account_id, limits_text(a.limits), *counts)


def allowance_changes(a: Allowance) -> Row:
    return (
        a.pending_nanos,
        a.total_nanos,
        a.day_nanos,
        a.week_nanos,
        a.month_nanos,
        a.counted_us,
        a.at_once,
        msgspec.json.encode(a.minute).decode(),
        a.owner,
    )


def prices_from(row: Row) -> KeptPrices:
    return KeptPrices(_decode_bodies(row[0]), row[1])


def prices_row(source: str, kept: KeptPrices) -> Row:
    return (source, msgspec.msgpack.encode(kept.bodies), kept.read_us)


def published_from(row: Row) -> PublishedPlans:
    return PublishedPlans(_decode_plans(row[0]), row[1], row[2])


def published_row(published: PublishedPlans) -> Row:
    return (msgspec.json.encode(published.plans).decode(), published.by, published.published_us)


_decode_limits = msgspec.json.Decoder(Limits).decode
_decode_minute = msgspec.json.Decoder(tuple[Slot, ...]).decode
_decode_bodies = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode
_decode_plans = msgspec.json.Decoder(tuple[Plan, ...]).decode

_LIMITS = Allowance.__struct_fields__.index("limits")
_ACCOUNT_COLUMNS = len(Account.__struct_fields__)
_DISABLED = Key.__struct_fields__.index("disabled")


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
