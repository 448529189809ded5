"""Who calls, who pays, and who manages both."""

from msgspec import Struct

from farebox.core.allowances import NO_LIMITS, Limits
from farebox.core.books import Outside
from farebox.core.plans import Plan


class Account(Struct, frozen=True):
    """Who pays."""

    id: int
    name: str
    plan: str
    created_us: int
    limits: Limits = NO_LIMITS


class Key(Struct, frozen=True):
    """A credential of an account. `digest` is the SHA-256 of the key, which itself is nowhere kept.

    A key with `revoked_us` is refused; only where it is `disabled` can that be undone.
    """

    id: int
    account_id: int
    label: str
    digest: bytes
    hint: str
    created_us: int
    revoked_us: int | None = None
    disabled: bool = False
    expires_us: int | None = None
    updated_us: int | None = None
    limits: Limits = NO_LIMITS


class ManagementKey(Struct, frozen=True):
    """A credential of who manages accounts and keys, all of them or one account's; nothing is ordered with it."""

    id: int
    label: str
    digest: bytes
    hint: str
    account_id: int | None
    created_us: int
    revoked_us: int | None = None


class PublishedPlans(Struct, frozen=True):
    """The plans that all nodes serve under, as a node that started has published them."""

    plans: tuple[Plan, ...]
    by: str
    published_us: int


class Caller(Struct, frozen=True):
    """An authenticated account and key, with the terms it is served under, and who charges it outside, if anybody."""

    account: Account
    key: Key
    plan: Plan
    outside: Outside | None = None


class User(Struct, frozen=True):
    """A user of the platform that runs this gateway. `is_of_run`: the token was that of a run."""

    id: str
    is_paying: bool
    is_of_run: bool
