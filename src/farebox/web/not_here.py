"""What OpenRouter's API has, and this gateway has not, with the reason that callers are told.

Most of it is about the operator's own account at OpenRouter: callers share that, so none of it is theirs to read or to
change. A path that is served here goes before what stands here.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from farebox.core.errors import Refusal, unknown
from farebox.core.formats.table import BASES

_HANDED_OUT = (
    "whoever orders here has an account and keys of this gateway, which its operator makes (`farebox account create`,"
    " `farebox key create`, or POST /admin/accounts and /api/v1/keys with a management key)"
)
_SHARED = "what is kept in the operator's account at OpenRouter would be everybody's here"
_NOT_AN_ORDER = "orders of this format are not served"

AREAS: Mapping[str, str] = MappingProxyType(
    {
        "/analytics": "the operator's account at OpenRouter is counted there; yours is in GET /key, and managers have"
        " GET /activity",
        "/api/alpha": _NOT_AN_ORDER,
        "/auth/keys": f"keys of OpenRouter are handed out there; {_HANDED_OUT}",
        "/batches": "batches are placed by `farebox batch`, or as a run at /v2/actors/openrouter/runs",
        "/benchmarks": "it is OpenRouter's own page about models, and is there for everybody",
        "/byok": "keys for hosts are the operator's: an upstream of its own, declared in farebox.toml",
        "/classifications": "it is OpenRouter's own page about what its users ask, and is there for everybody",
        "/containers": f"{_SHARED}; an order's own tools run at its caller's",
        "/credits/coinbase": "credits are paid in to this gateway's operator (`farebox account top-up`, POST"
        " /admin/top-ups); GET /credits tells what is left",
        "/datasets": "it is OpenRouter's own page about what its users order, and is there for everybody",
        "/external-users": f"the members of the operator's account at OpenRouter stand there; {_HANDED_OUT}",
        "/files": f"{_SHARED}; send a file within the order, as a `file` with its data or its URL",
        "/generation/feedback": "it would be said in the operator's name; tell the operator, with the generation's id",
        "/guardrails": "what orders may be is set by the operator: plans, limits and guards in farebox.toml; GET /key"
        " shows a key's own limits",
        "/interns": f"{_SHARED}; agents run at their caller's, and order here",
        "/oauth": f"keys of OpenRouter are handed out there; {_HANDED_OUT}",
        "/observability": "what is told of orders is set by the operator: /metrics, traces and the log",
        "/organization": f"the members of the operator's account at OpenRouter stand there; {_HANDED_OUT}",
        "/private-endpoints": "endpoints of one's own are the operator's: an upstream declared in farebox.toml",
        "/scim": f"the members of the operator's account at OpenRouter are kept there; {_HANDED_OUT}",
        "/systemone": _NOT_AN_ORDER,
        "/tools": "it is OpenRouter's own page about its server tools, and is there for everybody",
        "/vault": _SHARED,
        "/workspaces": f"an account of this gateway stands in a workspace's place; {_HANDED_OUT}",
    }
)
"""The reason for every path that is this one, or stands below it."""

PATH_CHARACTERS_MAX = 300


def not_here(path: str) -> Refusal | None:
    """404 with the reason, for a whole path that OpenRouter's API has and this one has not; None for any other."""
    below = next((path.removeprefix(base) for base in BASES if path.startswith(f"{base}/")), path)
    area = area_of(below[:PATH_CHARACTERS_MAX])
    return None if area is None else unknown(f"{area} is not served here: {AREAS[area]}")


def area_of(below: str) -> str | None:
    """The key of AREAS that a path under a base belongs to."""
    return found[1] if (found := _AREA.match(below)) else None


_AREA = re.compile(f"({'|'.join(map(re.escape, AREAS))})(?:/|$)")
