"""People in a file, CSV or JSON: an account each, its plan, its money, its limits, and a key for it."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from farebox.core.allowances import LIMIT_NAMES
from farebox.core.money import parse_usd
from farebox.core.moving.foreign_keys import BadRows, flag, known_columns, limits_of, read_rows

COLUMNS = ("name", "plan", "prepaid_usd", "postpaid", "limit_usd", "label", "expires", *LIMIT_NAMES)
"""Only `name` must be there. The limits are the account's."""

NAMES: Mapping[str, str] = {"account": "name", "email": "name", "budget_usd": "usd_per_month"}
"""Other names that are understood."""


class Person(Struct, frozen=True):
    """An account as a file has it. `limit_nanos` is 0 for a prepaid one; `label` is its key's, and no key is made where
    that is `-`."""

    where: str
    name: str
    plan: str
    paid_in_nanos: int = 0
    limit_nanos: int | None = 0
    label: str = ""
    expires: str = ""
    limits: dict[str, str | list[str] | None] = {}


def read_people(text: str, plan: str | None) -> list[Person]:
    """The people of a file; `plan` is whose that name none. Raises BadRows."""
    found, faults, seen = list[Person](), list[str](), dict[str, int]()
    for number, row in enumerate(read_rows(text), 1):
        try:
            person = _person(f"row {number}", row, plan)
            if (before := seen.setdefault(person.name, number)) != number:
                raise ValueError(f"the name `{person.name}` stands in row {before}, too")
            found.append(person)
        except ValueError as error:
            faults.append(f"row {number}: {error}")
    if faults:
        raise BadRows("\n".join(faults))
    return found


def _person(where: str, row: Mapping[str, Any], plan: str | None) -> Person:
    values = known_columns(row, (*COLUMNS, *NAMES))
    for other, ours in NAMES.items():
        if other in values:
            values.setdefault(ours, values[other])
    name, named = str(values.get("name", "")).strip(), str(values.get("plan", plan or "")).strip()
    if not name:
        raise ValueError("name: missing")
    if not named:
        raise ValueError("plan: missing; give the column, or --plan for all")
    is_postpaid = flag("postpaid", values.get("postpaid", "false"))
    paid_in, limit = (_amount(values, each) for each in ("prepaid_usd", "limit_usd"))
    if limit is not None and not is_postpaid:
        raise ValueError("limit_usd: goes with postpaid; a prepaid account's limit is what was paid in")
    return Person(
        where,
        name,
        named,
        paid_in or 0,
        limit if is_postpaid else 0,
        str(values.get("label", "")).strip(),
        str(values.get("expires", "")).strip(),
        limits_of(values),
    )


def _amount(values: Mapping[str, Any], name: str) -> int | None:
    if name not in values:
        return None
    try:
        return parse_usd(str(values[name]))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
