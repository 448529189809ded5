"""Deployments as the upstreams that serve them: which are one, what each is called, and what is written of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain, count
from math import gcd, lcm

from msgspec import Struct
from msgspec.structs import replace

from farebox.core.moving.litellm_deployments import Deployment, Place, Rank
from farebox.core.moving.litellm_notes import Note, plain
from farebox.core.moving.litellm_prices import Priced
from farebox.core.moving.litellm_pricing import Borrowed, Free, Listed, Told, Unpriced
from farebox.core.moving.toml_text import Value, comment, commented_out, table, text
from farebox.core.moving.toml_text import member as line_of

WEIGHT_MAX = 1000
"""The most that an upstream's weight may be."""

NAMES_IN_A_LINE = 3
"""More names than that are a table of their own."""


class Upstream(Struct, frozen=True):
    name: str
    place: Place
    deployments: tuple[Deployment, ...]


class Written(Struct, frozen=True):
    """An upstream's block of farebox.toml, its entries of the price file, and what the report says."""

    block: str
    prices: tuple[str, ...]
    notes: tuple[Note, ...]


def ranked(deployments: Sequence[Deployment]) -> list[Deployment]:
    """Their ranks and weights, by what LiteLLM's shuffle makes of each model's weight, rpm or tpm."""
    found: list[Deployment] = []
    by_model: dict[str, list[Deployment]] = {}
    for each in deployments:
        by_model.setdefault(each.ours, []).append(each)
    places = {id(each): place for several in by_model.values() for each, place in _placed(several)}
    found += [replace(each, place=places[id(each)]) for each in deployments]
    return found


def _placed(of_model: list[Deployment]) -> Iterator[tuple[Deployment, Place]]:
    orders = [each.order for each in of_model if each.order is not None]
    last = max(orders, default=Fraction(0)) + 1 if orders else Fraction(0)
    for rank in sorted({each.order if each.order is not None else last for each in of_model}):
        same = [each for each in of_model if (each.order if each.order is not None else last) == rank]
        shares = next((s for s in zip(*(each.shares for each in same), strict=True) if any(s)), (None,) * len(same))
        has_shares = any(shares)
        weights = _whole([share or Fraction(0) for share in shares])
        for each, weight in zip(same, weights, strict=True):
            is_weightless = has_shares and weight == 0
            yield each, replace(each.place, rank=Rank(0, "*" in each.ours, rank, is_weightless), weight=max(weight, 1))


def _whole(shares: list[Fraction]) -> list[int]:
    """The shares as the smallest whole numbers in the same proportion, none above WEIGHT_MAX."""
    if not any(shares):
        return [0] * len(shares)
    scale = lcm(*(share.denominator for share in shares))
    whole = [int(share * scale) for share in shares]
    divisor = gcd(*whole)
    whole = [each // divisor for each in whole]
    most = max(whole)
    if most <= WEIGHT_MAX:
        return whole
    return [max(1, round(Fraction(each * WEIGHT_MAX, most))) if each else 0 for each in whole]


def upstreams_of(deployments: Iterable[Deployment]) -> list[Upstream]:
    """Deployments at one place are one upstream, but for those of the same model, or of one model at two prices."""
    by_place: dict[Place, list[dict[str, Deployment]]] = {}
    for each in deployments:
        groups = by_place.setdefault(each.place, [])
        may_join = groups if each.place.orders_max is None else []
        group = next((group for group in may_join if _may_join(group, each)), None)
        if group is None:
            groups.append({each.ours: each})
        else:
            group[each.ours] = each
    found = [(place, tuple(group.values())) for place, groups in by_place.items() for group in groups]
    names = _names([(place, group[0].label) for place, group in found])
    return [Upstream(name, place, group) for name, (place, group) in zip(names, found, strict=True)]


def _may_join(group: Mapping[str, Deployment], joining: Deployment) -> bool:
    return joining.ours not in group and not any(
        each.own == joining.own and each.prices != joining.prices for each in group.values()
    )


def _names(places: Iterable[tuple[Place, str]]) -> list[str]:
    found: list[str] = []
    for place, label in places:
        wanted = f"{label}-fallback" if place.rank.fallback else label
        numbered = (f"{wanted}-{number}" for number in count(2))
        found.append(next(name for name in chain((wanted,), numbered) if name not in found))
    return found


def orders_of(upstreams: Iterable[Upstream]) -> Mapping[Rank, int]:
    """What Farebox's `order` is for each rank."""
    return {rank: at for at, rank in enumerate(sorted({each.place.rank for each in upstreams}))}


def write(upstream: Upstream, order: int) -> Written:
    place, deployments = upstream.place, upstream.deployments
    members: dict[str, Value] = {"kind": place.kind}
    if place.base_url is not None:
        members["base_url"] = place.base_url
    if place.key_variable is not None:
        members["key_variable"] = place.key_variable
    if [each.ours for each in deployments] != ["*"]:
        members["models"] = [each.ours for each in deployments]
    names = {each.ours: each.own for each in deployments if each.ours != each.own}
    are_many = len(names) > NAMES_IN_A_LINE
    if names and not are_many:
        members["names"] = names
    if place.formats is not None:
        members["formats"] = list(place.formats)
    if place.capped_by is not None:
        members["capped_by"] = place.capped_by
    if place.first_byte_seconds is not None:
        members["first_byte_seconds"] = place.first_byte_seconds
    if place.orders_max is not None:
        members["orders_max"] = place.orders_max
    if order:
        members["order"] = order
    if place.weight != 1:
        members["weight"] = place.weight
    by = _priced_by(deployments)
    if by is not None:
        members["prices"] = by
    prices, unpriced = _prices(upstream) if by == "file" else ((), ())
    notes = (*(note for each in deployments for note in each.notes), *unpriced)
    block = table(f"[upstreams.{upstream.name}]", members, map(str, notes))
    if are_many:
        block += f"\n\n[upstreams.{upstream.name}.names]\n" + "\n".join(map(line_of, map(text, names), names.values()))
    return Written(block, prices, notes)


def _priced_by(deployments: Sequence[Deployment]) -> str | None:
    if all(isinstance(each.prices, Told) for each in deployments):
        return "openrouter" if deployments[0].place.by_list else None
    return "free" if all(isinstance(each.prices, Free) for each in deployments) else "file"


def _prices(upstream: Upstream) -> tuple[tuple[str, ...], tuple[Note, ...]]:
    """The entries of the price file, where models have their upstream's own names."""
    entries: dict[str, list[str]] = {}
    notes: list[Note] = []
    for each in upstream.deployments:
        if each.own in entries:
            continue
        head: dict[str, Value] = {"upstream": upstream.name, "model": each.own}
        found = entries.setdefault(each.own, [])
        match each.prices:
            case Priced() as priced:
                found += priced.tables(upstream.name, each.own)
            case Listed(models):
                for own, priced in models:
                    entries.setdefault(own, list(priced.tables(upstream.name, own)))
            case Borrowed(listed):
                found.append(table("[[prices]]", {**head, "openrouter": listed}))
            case Free():
                found.append(table("[[prices]]", {**head, "free": True}))
            case Unpriced(reason):
                note = Note(each.where, f"without a price, `{plain(each.ours)}` is not served: {reason}")
                notes.append(note)
                missing = table("[[prices]]", {**head, "prompt": "", "answer": ""})
                found.append("\n".join((*comment(str(note)), commented_out(missing))))
            case Told():
                raise AssertionError(each)
    return tuple(entry for each in entries.values() for entry in each), tuple(notes)
