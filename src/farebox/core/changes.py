"""What the trail says of each change: from what to what, of an account, a key, its limits, a preset, the plans. None
where nothing differs: who says again what is so already changes nothing."""

from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from farebox.core.alerts import Receiver
from farebox.core.allowances import Limits, limits_by_name
from farebox.core.callers import Account, Key, ManagementKey, PublishedPlans
from farebox.core.money import format_usd
from farebox.core.plans import Plan
from farebox.core.trail import Change, Members, Value
from farebox.core.webhooks import shown


def account_opened(account: Account, limit_nanos: int | None) -> Change:
    members: dict[str, tuple[Value, Value]] = {
        "name": (None, account.name),
        "plan": (None, account.plan),
        "terms": (None, "prepaid" if limit_nanos == 0 else "postpaid"),
    }
    if limit_nanos:
        members["limit_usd"] = (None, format_usd(limit_nanos))
    return Change(what="account.opened", account_id=account.id, members=members)


def account_changed(before: Account, after: Account) -> Change | None:
    members = _differing(before, after, ("name", "plan", "closed_us"))
    if not members:
        return None
    what = "account.changed"
    if "closed_us" in members:
        what = "account.reopened" if after.closed_us is None else "account.closed"
    return Change(what=what, account_id=after.id, members=members)


_KEY_MEMBERS = ("label", "expires_us", "cache_seconds", "may_store", "disabled", "revoked_us")
_MADE_SO: Mapping[str, Value] = {"may_store": True, "disabled": False}


def key_made(key: Key, *, is_imported: bool) -> Change:
    members: dict[str, tuple[Value, Value]] = {
        name: (None, value)
        for name in _KEY_MEMBERS
        if (value := getattr(key, name)) is not None and value != _MADE_SO.get(name)
    }
    what = "key.imported" if is_imported else "key.made"
    return Change(what=what, account_id=key.account_id, key_id=key.id, members=members)


def key_changed(before: Key, after: Key) -> Change | None:
    members = _differing(before, after, _KEY_MEMBERS)
    if not members:
        return None
    what = "key.changed"
    if "disabled" in members and after.revoked_us is None:
        what = "key.enabled"
    elif "disabled" in members and after.disabled:
        what = "key.disabled"
    elif after.revoked_us is not None and not after.disabled and members.keys() & {"revoked_us", "disabled"}:
        what = "key.revoked"
    return Change(what=what, account_id=after.account_id, key_id=after.id, members=members)


def key_rotated(before: Key, after: Key) -> Change:
    members: dict[str, tuple[Value, Value]] = {"secret": ("one", "another")}
    members |= _differing(before, after, ("expires_us", "old_until_us"))
    return Change(what="key.rotated", account_id=after.account_id, key_id=after.id, members=members)


def limits_set(account_id: int, key_id: int | None, before: Limits, after: Limits) -> Change | None:
    old, new = ({name: _limit_text(value) for name, value in limits_by_name(each).items()} for each in (before, after))
    members = {name: (old[name], new[name]) for name in new if old[name] != new[name]}
    if not members:
        return None
    what = "account.limited" if key_id is None else "key.limited"
    return Change(what=what, account_id=account_id, key_id=key_id, members=members)


def end_user_limited(account_id: int, end_user: str | None, before: Limits, after: Limits) -> Change | None:
    """Of one end user, by its name as it is kept, or (None) of each that has none of its own."""
    change = limits_set(account_id, None, before, after)
    about = "each end user" if end_user is None else f"end user {end_user}"
    return None if change is None else replace(change, what="end_user.limited", about=about)


def _limit_text(value: object) -> Value:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return value if isinstance(value, int) else None if value is None else str(value)


def management_key_made(key: ManagementKey) -> Change:
    of = "all" if key.account_id is None else "one account"
    members: Members = {"label": (None, key.label), "accounts": (None, of)}
    return Change(
        what="management_key.made", account_id=key.account_id, about=f"management key {key.id}", members=members
    )


def management_key_revoked(key_id: int, account_id: int | None, revoked_us: int) -> Change:
    return Change(
        what="management_key.revoked",
        account_id=account_id,
        about=f"management key {key_id}",
        members={"revoked_us": (None, revoked_us)},
    )


def receiver_added(receiver: Receiver) -> Change:
    return _of_receiver("alert.added", receiver, is_there=True)


def receiver_removed(receiver: Receiver) -> Change:
    return _of_receiver("alert.removed", receiver, is_there=False)


def _of_receiver(what: str, receiver: Receiver, *, is_there: bool) -> Change:
    said: Mapping[str, Value] = {
        "label": receiver.label,
        "url": shown(receiver.url),
        "form": receiver.form,
        "kinds": ", ".join(receiver.kinds),
    }
    members = {name: (None, value) if is_there else (value, None) for name, value in said.items()}
    return Change(what=what, account_id=receiver.account_id, about=f"alerts to {receiver.id}", members=members)


def low_balance_set(account_id: int, before_nanos: int | None, after_nanos: int | None) -> Change | None:
    """Below what an account is told as low; None is as where nothing was set."""
    if before_nanos == after_nanos:
        return None
    before, after = (None if nanos is None else format_usd(nanos) for nanos in (before_nanos, after_nanos))
    return Change(what="alert.low_balance", account_id=account_id, members={"below_usd": (before, after)})


def preset_saved(account_id: int, slug: str, before: int | None, after: int | None) -> Change:
    """A preset's versions; what each has in it is kept with it."""
    what = "preset.dropped" if after is None else "preset.saved"
    return Change(what=what, account_id=account_id, about=f"preset {slug}", members={"version": (before, after)})


def plans_published(before: PublishedPlans | None, after: PublishedPlans) -> Change:
    old = {plan.name: _plan_text(plan) for plan in before.plans} if before else {}
    new = {plan.name: _plan_text(plan) for plan in after.plans}
    members = {
        name: (old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }
    return Change(what="plans.published", members=members)


def _plan_text(plan: Plan) -> str:
    said = [f"event_price_usd={format_usd(plan.event_price_nanos)}"]
    for name in Plan.__struct_fields__:
        value = getattr(plan, name)
        if name not in ("name", "event_price_nanos") and value not in (None, ()):
            said.append(f"{name}={' '.join(map(str, value)) if isinstance(value, tuple | list) else value}")
    return ", ".join(said)


def _differing(before: Struct, after: Struct, names: Iterable[str]) -> dict[str, tuple[Value, Value]]:
    both = {name: (getattr(before, name), getattr(after, name)) for name in names}
    return {name: (old, new) for name, (old, new) in both.items() if old != new}
