"""What counts against the limits of an end user, from the books; and their lists."""

from msgspec.structs import replace

from farebox.core.allowances import DAY_US, Allowance, began_us
from farebox.store.engine import Db
from farebox.store.sql import Statements


def count_end_user(db: Db, sql: Statements, allowance: Allowance, end_user: str, now_us: int) -> Allowance:
    """An end user's allowance with all that counts against it. Within a transaction that has locked its account's
    balance."""
    named = {"account": allowance.account_id, "end_user": end_user}
    days = {period: began_us(period, now_us) // DAY_US for period in ("month", "week", "day")}
    ((spent,), (held,)) = db.read([(sql.end_user_spent, {**named, **days}), (sql.end_user_held, named)])
    total, month, week, day = spent
    return replace(
        allowance,
        pending_nanos=held[0],
        at_once=held[1],
        total_nanos=total,
        month_nanos=month,
        week_nanos=week,
        day_nanos=day,
        counted_us=now_us,
    )
