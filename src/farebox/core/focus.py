"""Charges as FOCUS has them, the FinOps Open Cost and Usage Specification, version 1.0 (focus.finops.org): what a fare
was for, in all columns of that version.

A charge is a fare, or the correction of one: what is paid in and out is no charge. An event is the unit that is priced,
so a price times a quantity is the cost, exactly.
"""

from collections.abc import Mapping

from farebox.core.allowances import DAY_US, date_of, month_of_day
from farebox.core.chart import Happened, Moved, Side, Spent
from farebox.core.money import format_usd, plain

VERSION = "1.0"

COLUMNS = (
    "AvailabilityZone",
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
)
OWN_COLUMNS = ("x_Kind", "x_Orders", "x_PromptTokens", "x_AnswerTokens", "x_OrderId", "x_GenerationId")
UPSTREAM_COLUMNS = ("x_UpstreamCost",)
"""What the operator is charged for the same orders."""

PROVIDER = "Farebox"
_SECOND_US = 1_000_000
_UNITS = {
    "pictures": "Pictures",
    "characters": "Characters",
    "audio_seconds": "Seconds",
    "video_seconds": "Seconds",
    "search_units": "Searches",
}
"""Of kinds' units, by FOCUS's rules: in the plural, with capitals."""


def columns(side: Side) -> tuple[str, ...]:
    return (*COLUMNS, *OWN_COLUMNS, *(UPSTREAM_COLUMNS if side == "operator" else ()))


def row(account_id: int, account: str, happened: Happened, issuer: str | None, side: Side) -> Mapping[str, str] | None:
    """A charge, by columns; a null is empty. None for what is no charge."""
    if isinstance(happened, Moved):
        if happened.what != "correction":
            return None
        found = _correction(happened)
    else:
        found = _usage(happened)
        if side == "operator" and happened.cost is not None:
            found["x_UpstreamCost"] = plain(happened.cost)
    first, behind = month_of_day(happened.day)
    return {
        **dict.fromkeys(columns(side), ""),
        "BillingAccountId": f"account-{account_id}",
        "BillingAccountName": account,
        "BillingCurrency": "USD",
        "BillingPeriodStart": _midnight(first),
        "BillingPeriodEnd": _midnight(behind),
        "InvoiceIssuerName": issuer or PROVIDER,
        "ProviderName": PROVIDER,
        "PublisherName": happened.model.partition("/")[0] if "/" in happened.model else PROVIDER,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Model inference",
        "SubAccountId": happened.key_hash,
        "SubAccountName": happened.key,
        "Tags": "{}",
        **found,
    }


def _usage(spent: Spent) -> dict[str, str]:
    fare = format_usd(spent.fares_nanos)
    price = _event_price(spent)
    tokens = spent.prompt_tokens + spent.answer_tokens
    return {
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), fare),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"Fares of {spent.model}",
        "ChargeFrequency": "Usage-Based",
        **_period(spent),
        "ConsumedQuantity": spent.units or (str(tokens) if tokens else ""),
        "ConsumedUnit": _UNITS.get(spent.unit, spent.unit) if spent.units else "Tokens" if tokens else "",
        "ListUnitPrice": price,
        "ContractedUnitPrice": price,
        "PricingCategory": "Standard",
        "PricingQuantity": str(spent.events),
        "PricingUnit": "Events",
        "ResourceId": spent.model,
        "ResourceName": spent.model,
        "ResourceType": "Model",
        "SkuId": spent.model,
        "SkuPriceId": f"{spent.model}@{price}" if price else "",
        "x_Kind": spent.kind,
        "x_Orders": str(spent.orders),
        "x_PromptTokens": str(spent.prompt_tokens),
        "x_AnswerTokens": str(spent.answer_tokens),
        "x_OrderId": spent.order_id,
        "x_GenerationId": spent.generation_id,
    }


def _event_price(spent: Spent) -> str:
    """What an event cost; empty where there were several prices in a day, which no one price is right for."""
    if spent.event_price_nanos is not None:
        return format_usd(spent.event_price_nanos)
    if not spent.events:
        return "0"
    nanos, rest = divmod(spent.fares_nanos, spent.events)
    return "" if rest else format_usd(nanos)


def _correction(moved: Moved) -> dict[str, str]:
    """Of a fare of a month before, it corrects what may have been invoiced."""
    amount = format_usd(-moved.moved_nanos)
    is_later = moved.fare_us is not None and month_of_day(moved.fare_us // DAY_US) != month_of_day(moved.day)
    return {
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), amount),
        "ChargeCategory": "Adjustment",
        "ChargeClass": "Correction" if is_later else "",
        "ChargeDescription": f"Correction: {moved.reason}",
        "ChargeFrequency": "One-Time",
        **_period(moved),
        "ResourceId": moved.model,
        "ResourceName": moved.model,
        "ResourceType": "Model" if moved.model else "",
        "x_OrderId": moved.order_id,
    }


def _period(happened: Happened) -> dict[str, str]:
    """A day's sums are of the day, all else of the second in which it was booked."""
    if isinstance(happened, Spent) and not happened.is_one:
        return {"ChargePeriodStart": _midnight(happened.day), "ChargePeriodEnd": _midnight(happened.day + 1)}
    second = happened.at_us // _SECOND_US
    return {"ChargePeriodStart": _moment(second), "ChargePeriodEnd": _moment(second + 1)}


def _midnight(day: int) -> str:
    return f"{date_of(day)}T00:00:00Z"


def _moment(seconds: int) -> str:
    day, second = divmod(seconds, 86_400)
    minutes, second = divmod(second, 60)
    return f"{date_of(day)}T{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}Z"
