"""Callers, the accounts and keys behind them, and the keys that manage both."""

from msgspec import Struct
from msgspec.structs import replace

from farebox.core.allowances import NO_LIMITS, Limits
from farebox.core.books import Outside
from farebox.core.plans import Plan


class Account(Struct, frozen=True):
    """Who pays. `plan` is the name of its plan; it was opened at `created_us`. One with `closed_us` orders nothing any
    more."""

    id: int
    name: str
    plan: str
    created_us: int
    closed_us: int | None = None
    limits: Limits = NO_LIMITS


class Key(Struct, frozen=True):
    """A credential of an account. `digest` is the key's SHA-256, `hint` what lists show of it; the key itself is kept
    nowhere.

    A key with `revoked_us` is refused: for good, or, where it is `disabled`, until it is enabled again. Answers to its
    orders are kept for `cache_seconds` for the same order again, where that is set; and for their account to ask for
    them later, unless the key may not store (`may_store`). A key that was rotated has another digest, and until
    `old_until_us` the `old_digest` is as good.
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
    cache_seconds: int | None = None
    may_store: bool = True
    old_digest: bytes | None = None
    old_until_us: int | None = None
    limits: Limits = NO_LIMITS

    def as_sent(self, digest: bytes) -> "Key":
        """The key as one of its two digests is good for it: the old one expires."""
        if digest == self.digest:
            return self
        until = self.old_until_us if self.old_digest == digest and self.old_until_us is not None else 0
        return replace(self, expires_us=until if self.expires_us is None else min(until, self.expires_us))


class KeyTerms(Struct, frozen=True):
    """What a key is made with, each as in `Key`. `is_imported`: it was another gateway's."""

    expires_us: int | None = None
    cache_seconds: int | None = None
    may_store: bool = True
    disabled: bool = False
    is_imported: bool = False
    limits: Limits = NO_LIMITS


PLAIN_TERMS = KeyTerms()


def made_under(terms: KeyTerms, key: Key) -> Key:
    """A new key, as its terms say."""
    return replace(
        key,
        expires_us=terms.expires_us,
        cache_seconds=terms.cache_seconds,
        may_store=terms.may_store,
        disabled=terms.disabled,
        revoked_us=key.created_us if terms.disabled else None,
        limits=terms.limits,
    )


class ManagementKey(Struct, frozen=True):
    """A credential that manages accounts and keys: those of one account, or all (`account_id` None). It cannot
    order."""

    id: int
    label: str
    digest: bytes
    hint: str
    account_id: int | None
    created_us: int
    revoked_us: int | None = None


class PublishedPlans(Struct, frozen=True):
    """The plans under which all nodes serve. `by` is the node that published them, when it started."""

    plans: tuple[Plan, ...]
    by: str
    published_us: int


class Caller(Struct, frozen=True):
    """An authenticated account and key, the plan that holds for them, and how an outside biller charges them, if one
    does."""

    account: Account
    key: Key
    plan: Plan
    outside: Outside | None = None


class User(Struct, frozen=True):
    """A user of Apify's platform, where this gateway runs as an Actor. `is_of_run`: the token belongs to an Actor's
    run."""

    id: str
    is_paying: bool
    is_of_run: bool
