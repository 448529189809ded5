"""Objects and errors in the shapes of Apify's platform, as its clients insist on them."""

from collections.abc import Mapping
from typing import Any

import msgspec

from farebox import __version__, clock
from farebox.core.callers import Account, Caller
from farebox.core.errors import Refusal
from farebox.core.money import format_usd
from farebox.core.runs import Run
from farebox.platform.priced_events import PRICED_EVENT

ACTOR_ID = "fareboxOpenRouter"
BUILD_ID = "fareboxBuild00001"
BUILD_NUMBER = "0.1.1"
ACTOR_NAMES = frozenset({ACTOR_ID, "apify~openrouter", "~openrouter", "openrouter"})
"""The names under which clients ask for the Actor whose job this gateway does."""

_TYPES = {
    "authentication": "user-or-token-not-found",
    "invalid_request": "invalid-request",
    "not_found": "record-not-found",
    "payload_too_large": "request-too-large",
    "permission_denied": "insufficient-permissions",
    "rate_limit_exceeded": "rate-limit-exceeded",
    "payment_required": "not-enough-usage-to-run-paid-actor",
    "timeout": "request-timeout",
    "provider_unavailable": "internal-server-error",
}


class ApifyErrors:
    """Words refusals in the error envelope of Apify's platform."""

    def refusal_body(self, refusal: Refusal) -> bytes:
        kind = "unsupported-content-encoding" if refusal.status == 415 else refusal.error_type
        kind = _TYPES.get(kind, kind)
        return msgspec.json.encode({"error": {"type": kind, "message": refusal.message}})


ERRORS = ApifyErrors()


def wrong(name: str, why: str) -> Refusal:
    """A parameter, or a member of a body, that is not as it must be."""
    return Refusal(400, "invalid-value", f"{name}: {why}")


def user_id(account_id: int) -> str:
    """An account's id as a user's: seventeen characters, as on Apify's platform."""
    return f"account{account_id:010d}"


_CREATED = "2026-01-01T00:00:00.000Z"


def run_object(run: Run, billed: Mapping[str, int] | None = None) -> dict[str, Any]:
    """A run, with all that version 3 of the Python client demands and other clients read. `billed`: how many of each
    priced event its account was billed for."""
    ended_us = run.finished_us if run.finished_us is not None else clock.now_us()
    seconds = max(0, ended_us - run.started_us) / 1_000_000
    return {
        "id": run.id,
        "actId": ACTOR_ID,
        "userId": user_id(run.account_id),
        "actorTaskId": None,
        "startedAt": clock.iso(run.started_us),
        "finishedAt": None if run.finished_us is None else clock.iso(run.finished_us),
        "status": run.status,
        "statusMessage": run.status_message or None,
        "isStatusMessageTerminal": run.is_finished,
        "meta": {"origin": run.origin},
        "stats": {
            "inputBodyLen": run.input_bytes,
            "durationMillis": int(seconds * 1000),
            "runTimeSecs": seconds,
            **dict.fromkeys(("rebootCount", "restartCount", "resurrectCount", "computeUnits"), 0),
        },
        "options": {
            "build": "latest",
            "timeoutSecs": run.timeout_seconds,
            "memoryMbytes": run.memory_mbytes,
            "diskMbytes": 2 * run.memory_mbytes,
            "maxTotalChargeUsd": None if run.limit_nanos is None else msgspec.Raw(format_usd(run.limit_nanos).encode()),
        },
        "buildId": BUILD_ID,
        "buildNumber": BUILD_NUMBER,
        "exitCode": run.exit_code,
        "generalAccess": "RESTRICTED",
        "defaultKeyValueStoreId": run.store_id,
        "defaultDatasetId": run.dataset_id,
        "defaultRequestQueueId": run.queue_id,
        "usage": {},
        "usageTotalUsd": 0,
        "usageUsd": {},
        "pricingInfo": PRICING,
        "chargedEventCounts": dict(billed or {}),
    }


PRICING = {
    "pricingModel": "PAY_PER_EVENT",
    "apifyMarginPercentage": 0,
    "createdAt": _CREATED,
    "startedAt": _CREATED,
    "pricingPerEvent": {
        "actorChargeEvents": {
            PRICED_EVENT: {
                "eventTitle": "OpenRouter usage",
                "eventDescription": "What OpenRouter charged, rounded up to $0.00001.",
                "eventTieredPricingUsd": {
                    tier: {"tieredEventPriceUsd": 0.0001 if tier == "FREE" else 0.00001}
                    for tier in ("FREE", "BRONZE", "SILVER", "GOLD", "PLATINUM", "DIAMOND")
                },
                "isPrimaryEvent": True,
            }
        }
    },
    "minimalMaxTotalChargeUsd": None,
}
"""What a run's priced event costs: as on Apify's platform, ten times as much for users of its free tier."""


def storage_object(run: Run, storage_id: str) -> dict[str, Any]:
    """What a dataset, a key-value store and a request queue have in common."""
    moment = clock.iso(run.finished_us or run.started_us)
    return {
        "id": storage_id,
        "name": None,
        "userId": user_id(run.account_id),
        "actId": ACTOR_ID,
        "actRunId": run.id,
        "createdAt": clock.iso(run.started_us),
        "modifiedAt": moment,
        "accessedAt": moment,
        "generalAccess": "RESTRICTED",
        "consoleUrl": f"https://console.apify.com/storage/{storage_id}",
    }


def actor_object(account: Account) -> dict[str, Any]:
    """The one Actor that this gateway has."""
    return {
        "id": ACTOR_ID,
        "userId": user_id(account.id),
        "name": "openrouter",
        "username": "apify",
        "title": "OpenRouter",
        "description": "Any model of any provider with one key, charged to the exact event.",
        "isPublic": True,
        "createdAt": _CREATED,
        "modifiedAt": _CREATED,
        "stats": {"totalBuilds": 1, "totalRuns": 0, "totalUsers": 1},
        "versions": [],
        "pricingInfos": [PRICING],
        "defaultRunOptions": {"build": "latest", "timeoutSecs": 3600, "memoryMbytes": 1024},
        "taggedBuilds": {"latest": {"buildId": BUILD_ID, "buildNumber": BUILD_NUMBER, "finishedAt": _CREATED}},
    }


def build_object(account: Account) -> dict[str, Any]:
    """The Actor's one build."""
    return {
        "id": BUILD_ID,
        "actId": ACTOR_ID,
        "userId": user_id(account.id),
        "startedAt": _CREATED,
        "finishedAt": _CREATED,
        "status": "SUCCEEDED",
        "meta": {"origin": "API"},
        "buildNumber": BUILD_NUMBER,
        "readme": f"Farebox {__version__}",
    }


def user_object(caller: Caller) -> dict[str, Any]:
    """A caller's own account, with every member of a plan that version 3.0 of the Python client demands."""
    is_paying = caller.plan.name != "free"
    return {
        "id": user_id(caller.account.id),
        "username": caller.account.name,
        "profile": {"name": caller.account.name},
        "email": f"{user_id(caller.account.id)}@farebox.invalid",
        "proxy": {"password": "", "groups": []},
        "plan": {
            "id": caller.plan.name.upper(),
            "description": caller.plan.name,
            "isEnabled": True,
            "tier": "BRONZE" if is_paying else "FREE",
            **dict.fromkeys(("monthlyBasePriceUsd", "monthlyUsageCreditsUsd", "usageDiscountPercent"), 0),
            "enabledPlatformFeatures": [],
            **dict.fromkeys(("maxMonthlyUsageUsd", "maxMonthlyActorComputeUnits", "maxMonthlyProxySerps"), 0),
            **dict.fromkeys(("maxMonthlyResidentialProxyGbytes", "maxMonthlyExternalDataTransferGbytes"), 0),
            **dict.fromkeys(("maxActorCount", "maxActorTaskCount"), 0),
            "maxActorMemoryGbytes": 32,
            "dataRetentionDays": 7,
            "availableProxyGroups": {},
            "teamAccountSeatCount": 1,
            "supportLevel": "COMMUNITY",
            "availableAddOns": [],
        },
        "effectivePlatformFeatures": {},
        "isPaying": is_paying,
        "createdAt": clock.iso(caller.account.created_us),
    }
