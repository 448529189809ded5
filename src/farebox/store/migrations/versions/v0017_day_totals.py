"""The fares of each day, summed by account, key, model and kind."""

from decimal import Context, Decimal, Inexact

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

_COLUMNS = (
    "account_id, day, key_id, model, served_model, kind, orders, events, fares_nanos, cost_9, cost_18, cost_27,"
    " prompt_tokens, answer_tokens, units, latest_us"
)
_EXACT = Context(prec=500, traps=[Inexact])
_AT_ONCE = 1_000


def upgrade() -> None:
    """Add a table, and sum what stands in the books: some seconds for each million fares. What older code posts
    meanwhile, and after that, is not in the sums: `farebox audit` names it, and `farebox db recount` counts it."""
    op.create_table(
        "day_total",
        sa.Column("account_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("day", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("key_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("served_model", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        *(sa.Column(name.strip(), sa.BigInteger, nullable=False) for name in _COLUMNS.split(",")[6:]),
        sa.Column("cost_finer", sa.Text),
        sqlite_with_rowid=False,
    )
    books = op.get_bind()
    sums: dict[tuple[object, ...], list[int]] = {}
    finer: dict[tuple[object, ...], Decimal] = {}
    fares = sa.text(
        "SELECT t.debit_account_id, t.created_us, h.key_id, h.model, h.served_model, t.events, t.amount_nanos, t.cost,"
        " h.prompt_tokens, h.answer_tokens FROM transfer t JOIN hold h ON h.id = t.hold_id WHERE t.cost IS NOT NULL"
    ).execution_options(stream_results=True, yield_per=10_000)
    for (
        account_id,
        posted_us,
        key_id,
        model,
        served,
        events,
        nanos,
        cost,
        prompt_tokens,
        answer_tokens,
    ) in books.execute(fares):
        key = (account_id, posted_us // 86_400_000_000, key_id, model, served or model, "")
        scaled = _EXACT.scaleb(Decimal(cost), 27)
        whole = int(scaled)
        limbs = (whole // 10**18, whole // 10**9 % 10**9, whole % 10**9)
        if scaled != whole:
            rest = _EXACT.scaleb(_EXACT.subtract(scaled, Decimal(whole)), -27)
            finer[key] = _EXACT.add(finer.get(key, Decimal(0)), rest)
        found = sums.setdefault(key, [0] * 10)
        counts = (1, events, nanos, *limbs, prompt_tokens or 0, answer_tokens or 0, 0)
        for place, count in enumerate(counts):
            found[place] += count
        found[9] = max(found[9], posted_us)
    _put(books, [(*key, *found, str(finer[key]) if key in finer else None) for key, found in sums.items()])


def _put(books: sa.Connection, rows: list[tuple[object, ...]]) -> None:
    names = [name.strip() for name in f"{_COLUMNS}, cost_finer".split(",")]
    table = sa.table("day_total", *(sa.column(name) for name in names))
    for first in range(0, len(rows), _AT_ONCE):
        some = [dict(zip(names, row, strict=True)) for row in rows[first : first + _AT_ONCE]]
        books.execute(sa.insert(table), some)
