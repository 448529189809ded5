"""The OpenAPI 3.0 document of Farebox's surface: every path that is answered, and what is checked and answered there.

A request's other members are the upstream's business, and pass unread: its own document describes them.
"""

from farebox import __version__
from farebox.core.formats.table import FORMATS, Formats
from farebox.web.openapi import lists, management, orders, own, runs
from farebox.web.openapi.operations import Node


def document(formats: Formats = FORMATS, *, has_run_api: bool = True) -> Node:
    """The whole document, as JSON has it. `has_run_api`: this gateway serves the run API, too."""
    parts = [lists, management, own, *([runs] if has_run_api else [])]
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Farebox",
            "version": __version__,
            "description": "An LLM gateway that charges the exact fare. It speaks OpenRouter's API; every path stands"
            " under `/api/v1` and under `/v1`, where nothing else is said.",
            "license": {"name": "Apache-2.0"},
        },
        "servers": [{"url": "/api/v1"}, {"url": "/v1"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": [
            {"name": "Orders", "description": "Billed to the caller at the cost that the upstream reports."},
            *({"name": name, "description": text} for part in parts for name, text in part.TAGS.items()),
        ],
        "paths": {**orders.paths(formats), **{path: item for part in parts for path, item in part.paths().items()}},
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A Farebox key, `sk-fb-...`."},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key."},
                **{name: scheme for part in parts for name, scheme in part.CREDENTIALS.items()},
            },
            "schemas": {
                **orders.schemas(formats),
                **{name: schema for part in parts for name, schema in part.schemas().items()},
                **orders.errors(formats),
            },
        },
    }
