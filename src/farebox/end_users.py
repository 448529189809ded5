"""End users of accounts: who they are, what they spent, and their limits: the use cases of operators."""

from collections.abc import Sequence
from dataclasses import dataclass

from farebox import clock
from farebox.accounts import BadTerms
from farebox.core.allowances import (
    DAY_US,
    END_USER_LIMITS,
    NO_LIMITS,
    Allowance,
    LimitChanges,
    Limits,
    began_us,
    end_user_owner,
    with_changes,
)
from farebox.core.attribution import NAME_CHARS_MAX, Attribution
from farebox.core.bills import EndUserSpent
from farebox.core.callers import Account
from farebox.ports import Directory

PAGE = 100
PAGE_MAX = 1_000

NAMED_MAX = 10_000
"""Characters of a name that is asked for."""


@dataclass(frozen=True, slots=True)
class EndUser:
    """An end user of an account, by its name as it is kept: its `own` limits and those `in_force`, what counts against
    them (None: nothing is counted), and its orders and fares of this UTC month."""

    name: str
    own: Limits
    in_force: Limits
    allowance: Allowance | None
    orders: int = 0
    fares_nanos: int = 0
    latest_us: int | None = None


@dataclass(frozen=True, slots=True)
class EndUserPage:
    """A part of a list, and the last name in it, where there are more."""

    rows: list[EndUser]
    default: Limits
    next: str | None


class EndUsers:
    """The use cases over a store."""

    def __init__(self, store: Directory, attribution: Attribution) -> None:
        self._store = store
        self._attribution = attribution

    def kept_as(self, named: str) -> str:
        """An end user's name as it is kept; it may be given so. Raises BadTerms: it is none."""
        if not named or len(named) > NAMED_MAX:
            raise BadTerms(f"an end user's name has 1 to {NAMED_MAX} characters")
        kept = self._attribution.sought(named)
        if len(kept) > NAME_CHARS_MAX or not kept.isprintable():
            raise BadTerms("end users are not kept here (`end_users` is `off`)")
        return kept

    async def default(self, account: Account) -> Limits:
        """The limits of each end user of an account that has none of its own."""
        allowance = await self._store.allowance(end_user_owner(account.id, None))
        return NO_LIMITS if allowance is None else allowance.limits

    async def limit(self, account: Account, named: str | None, changes: LimitChanges) -> Limits:
        """Change the limits of an end user or (None) those by default, and return them as they are then. What was spent
        before counts, too. Raises BadTerms."""
        kept = None if named is None else self.kept_as(named)
        if strange := [name for name in changes if name not in END_USER_LIMITS]:
            raise BadTerms(f"{strange[0]}: an end user has no such limit; there are {', '.join(END_USER_LIMITS)}")
        if not changes:
            allowance = await self._store.allowance(end_user_owner(account.id, kept))
            return NO_LIMITS if allowance is None else allowance.limits

        def changed(limits: Limits) -> Limits:
            try:
                return with_changes(limits, changes)
            except ValueError as error:
                raise BadTerms(str(error)) from error

        return await self._store.limit_end_user(account.id, kept, changed, clock.now_us())

    async def find(self, account: Account, named: str) -> EndUser:
        """An end user, known or not. Raises BadTerms."""
        kept = self.kept_as(named)
        # Names are sorted as the database sorts them, so one is asked for by itself.
        (found,) = await self._with_limits(account, [await self._spent(account, kept)])
        return found

    async def _spent(self, account: Account, kept: str) -> EndUserSpent:
        return await self._store.end_user(account.id, self._month(), kept)

    async def page(self, account: Account, after: str = "", most: int = PAGE) -> EndUserPage:
        """Those with fares this UTC month, by their names."""
        found = await self._store.end_users(account.id, self._month(), after, most + 1)
        rows = await self._with_limits(account, found[:most])
        return EndUserPage(rows, await self.default(account), rows[-1].name if len(found) > most else None)

    async def limited(self, account: Account, after: str = "", most: int = PAGE) -> EndUserPage:
        """Those with limits of their own, by their names."""
        behind = end_user_owner(account.id, after) if after else ""
        found = await self._store.limited_end_users(account.id, behind, most + 1)
        prefix = end_user_owner(account.id, "")
        names = [each.owner.removeprefix(prefix) for each in found[:most]]
        spent = [await self._spent(account, name) for name in names]
        rows = await self._with_limits(account, spent)
        return EndUserPage(rows, await self.default(account), names[-1] if len(found) > most else None)

    async def _with_limits(self, account: Account, found: Sequence[EndUserSpent]) -> list[EndUser]:
        owners = [end_user_owner(account.id, each.end_user) for each in found]
        allowances = {each.owner: each for each in await self._store.allowances_of(owners)} if owners else {}
        default = await self.default(account)
        rows: list[EndUser] = []
        for owner, each in zip(owners, found, strict=True):
            allowance = allowances.get(owner)
            own = NO_LIMITS if allowance is None else allowance.limits
            spent = (each.orders, each.fares_nanos, each.latest_us or None)
            rows.append(EndUser(each.end_user, own, own.within(default), allowance, *spent))
        return rows

    def _month(self) -> int:
        return began_us("month", clock.now_us()) // DAY_US
