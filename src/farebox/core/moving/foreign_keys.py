"""Keys of another gateway, by their SHA-256: what stands in a file of them, CSV or JSON, one a row.

Farebox keeps of its own keys the same digest, so whoever holds such a key goes on with it. LiteLLM's table of keys is
read as it is: its `token` is that digest in hexadecimal (of keys that begin with `sk-`), and its limits have names
here.
"""

import csv
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import Struct

from farebox.core.allowances import LIMIT_NAMES, MODELS

DIGEST_HEX_LENGTH = 64
ROWS_MAX = 100_000

HINT_LENGTH_MAX = 40

OWN = ("digest", "account", "label", "hint", "expires", "disabled", *LIMIT_NAMES)
"""The columns by Farebox's names: of these only `digest` must be there."""

LITELLMS: Mapping[str, str] = {
    "token": "digest",
    "key_alias": "label",
    "key_name": "hint",
    "blocked": "disabled",
    "rpm_limit": "requests_per_minute",
    "tpm_limit": "tokens_per_minute",
    "max_parallel_requests": "orders_at_once",
}
"""LiteLLM's names for the same."""

PERIODS: Mapping[str, str] = {
    **dict.fromkeys(("1d", "24h", "daily"), "usd_per_day"),
    **dict.fromkeys(("7d", "1w", "168h", "weekly"), "usd_per_week"),
    **dict.fromkeys(("1mo", "30d", "31d", "monthly"), "usd_per_month"),
}
"""LiteLLM's `budget_duration`, and the limit that `max_budget` is then. Farebox's months are the calendar's."""

LEFT_OUT = frozenset(
    "spend total_spend model_spend tpd_limit key_type budget_fallbacks settings_updated_at"
    " user_id team_id organization_id project_id agent_id permissions metadata aliases config"
    " router_settings soft_budget_cooldown model_spend model_max_budget budget_id budget_reset_at last_rotation_at"
    " key_rotation_at auto_rotate rotation_interval rotation_count allowed_cache_controls allowed_routes"
    " object_permission_id created_at created_by updated_at updated_by last_active litellm_budget_table policies"
    " access_group_ids budget_limits".split()
)
"""Columns of LiteLLM's that say nothing here, or nothing that can be taken over."""

ALL_MODELS = frozenset(("all-team-models", "all-proxy-models"))
"""LiteLLM's words for no limit of models."""

_NO_VALUES = ("", "null", "none", "{}", "[]")


class ForeignKey(Struct, frozen=True):
    """A key by its digest. `where` names its row; `expires` is as it stands there, and is empty where it does not
    expire; limits are by LIMIT_NAMES."""

    where: str
    digest: bytes
    account: str = ""
    label: str = ""
    hint: str = ""
    expires: str = ""
    disabled: bool = False
    limits: dict[str, str | list[str] | None] = {}


class BadRows(Exception):  # noqa: N818 - the word of the house
    """A file is wrong. The message has a line for each fault, with its row."""


def read_foreign_keys(text: str) -> tuple[list[ForeignKey], frozenset[str]]:
    """The keys of a file, and the columns that were left out. Raises BadRows."""
    found, left_out, faults = list[ForeignKey](), set[str](), list[str]()
    seen: dict[bytes, str] = {}
    for number, row in enumerate(read_rows(text), 1):
        try:
            key, unread = _key(f"row {number}", row)
            if (before := seen.setdefault(key.digest, key.where)) != key.where:
                raise ValueError(f"the same digest stands in {before}")
            found.append(key)
            left_out |= unread
        except ValueError as error:
            faults.append(f"row {number}: {error}")
    if faults:
        raise BadRows("\n".join(faults))
    return found, frozenset(left_out)


def read_rows(text: str) -> list[Mapping[str, Any]]:
    """The rows of a CSV file with a head, of a JSON list, or of a JSON object that has one. Raises BadRows."""
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:1] in ("[", "{"):
        rows = _json_rows(text)
    else:
        read = csv.DictReader(text.splitlines(), skipinitialspace=True)
        rows = [{(name or "").strip(): value for name, value in row.items() if name is not None} for row in read]
    if not rows:
        raise BadRows("there are no rows in it; write CSV with a head, or a JSON list of objects")
    if len(rows) > ROWS_MAX:
        raise BadRows(f"there are more than {ROWS_MAX} rows in it")
    return rows


def _json_rows(text: str) -> list[Mapping[str, Any]]:
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise BadRows(f"it is not JSON: {error}") from error
    if isinstance(found, dict):
        found = next((each for each in found.values() if isinstance(each, list)), found)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise BadRows("a JSON list of objects is wanted")
    return found


def known_columns(row: Mapping[str, Any], known: Iterable[str], left_out: Iterable[str] = ()) -> dict[str, Any]:
    """The columns of a row that have a value. Raises ValueError: one is not known."""
    names = [*known]
    for name in row:
        if name not in names and name not in left_out:
            near = get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
            raise ValueError(f"there is no column {name!r}{hint}")
    return {
        name: value
        for name, value in row.items()
        if value is not None and value not in ([], {}) and str(value).strip().lower() not in _NO_VALUES
    }


def flag(name: str, value: object) -> bool:
    """Raises ValueError."""
    if (said := str(value).strip().lower()) not in ("true", "false", "1", "0", "yes", "no", "t", "f"):
        raise ValueError(f"{name}: write true or false, not {value!r}")
    return said in ("true", "1", "yes", "t")


def limits_of(values: Mapping[str, Any]) -> dict[str, str | list[str] | None]:
    """The limits of a row, by their names; models in one text are separated by commas or blanks."""
    found: dict[str, str | list[str] | None] = {}
    for name in LIMIT_NAMES:
        if name not in values:
            continue
        value = values[name]
        if name == MODELS:
            listed = value if isinstance(value, list) else str(value).strip("[]{}").replace(",", " ").split()
            found[name] = [str(each).strip("\"' ") for each in listed]
        else:
            found[name] = str(value).strip()
    return found


def _key(where: str, row: Mapping[str, Any]) -> tuple[ForeignKey, set[str]]:
    litellms = (*LITELLMS, "max_budget", "budget_duration")
    values = known_columns(row, (*OWN, *litellms), LEFT_OUT)
    unread = values.keys() & LEFT_OUT
    for theirs, ours in LITELLMS.items():
        if theirs in values:
            values.setdefault(ours, values[theirs])
    if "max_budget" in values:
        values.setdefault(_period(values.get("budget_duration")), _plain(values["max_budget"]))
    limits = limits_of(values)
    if ALL_MODELS.intersection(limits.get(MODELS) or ()):
        del limits[MODELS]
    key = ForeignKey(
        where,
        _digest(str(values.get("digest", "")).strip()),
        str(values.get("account", "")).strip(),
        str(values.get("label", "")).strip(),
        hint_of(str(values.get("hint", "")).strip(), str(values.get("digest", "")).strip()),
        str(values.get("expires", "")).strip(),
        flag("disabled", values.get("disabled", "false")),
        limits,
    )
    return key, unread


def hint_of(hint: str, digest_hex: str) -> str:
    """What lists show of a key that nobody here has seen."""
    if hint and len(hint) <= HINT_LENGTH_MAX and hint.isprintable():
        return hint
    return f"sha256:{digest_hex[:8].lower()}"


def _digest(text: str) -> bytes:
    try:
        if len(text) == DIGEST_HEX_LENGTH:
            return bytes.fromhex(text)
    except ValueError:
        pass
    if text.startswith("sk-"):
        raise ValueError(
            "digest: this is a key itself; write its SHA-256 in hexadecimal (`printf %s KEY | sha256sum`), so that"
            " keys lie in no file"
        )
    raise ValueError(f"digest: a key's SHA-256, {DIGEST_HEX_LENGTH} hexadecimal digits, not {text[:20]!r}")


def _period(duration: object) -> str:
    if duration is None:
        return "usd_total"
    if (name := PERIODS.get(str(duration).strip().lower())) is None:
        raise ValueError(f"budget_duration: {duration!r} is no day, week or month; write the limit as usd_per_month")
    return name


def _plain(amount: object) -> str:
    """A float of a database as plain digits: 5.0 is 5."""
    text = str(amount).strip()
    whole, _, fraction = text.partition(".")
    return whole if fraction and not fraction.strip("0") else text
