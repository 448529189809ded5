"""GET /openapi.json, and /docs: the same for people. One page that loads nothing else. Both are made when they are
first asked for: most gateways never are, and the document and its pages take 1.5 MB."""

from collections.abc import Callable
from functools import cache
from html import escape

import msgspec
from starlette.types import Receive, Scope, Send

from farebox.core.headers import HeaderList
from farebox.core.schemas import Schema as Node
from farebox.http.asgi import JSON, Endpoint, send_whole

HTML_HEADERS = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24;
  background: #fff; }
h1 { margin-bottom: 0; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #d0d7de; }
details { border: 1px solid #d0d7de; border-radius: 6px; margin: .5rem 0; padding: 0 1rem; }
details[open] { padding-bottom: 1rem; }
summary { cursor: pointer; padding: .6rem 0; }
summary b { font-family: ui-monospace, monospace; margin: 0 .7rem; overflow-wrap: anywhere; }
.method { font: bold .8rem ui-monospace, monospace; padding: .15rem .5rem; border-radius: 4px; color: #fff; }
.get { background: #1a7f37; }
.post { background: #0a58ca; }
.put, .patch { background: #9a6700; }
.delete { background: #cf222e; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
td { border-top: 1px solid #d0d7de; padding: .3rem .5rem .3rem 0; vertical-align: top; }
td:first-child { white-space: nowrap; }
pre, code { font: .85rem ui-monospace, monospace; background: #f3f5f7; border-radius: 4px; }
pre { padding: .7rem; overflow-x: auto; }
code { padding: .1rem .3rem; }
@media (prefers-color-scheme: dark) {
  body { color: #e6edf3; background: #0d1117; }
  pre, code { background: #1c2129; }
  a { color: #6cb6ff; }
}
"""


def for_machines(document: Callable[[], Node]) -> Endpoint:
    """GET /openapi.json."""
    return _page_of([JSON], lambda: msgspec.json.encode(document()))


def for_people(document: Callable[[], Node]) -> Endpoint:
    """GET /docs."""
    return _page_of(HTML_HEADERS, lambda: _html(document()).encode())


def _page_of(headers: HeaderList, make: Callable[[], bytes]) -> Endpoint:
    body = cache(make)

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        await send_whole(send, 200, headers, body())

    return endpoint


def _html(document: Node) -> str:
    info = document["info"]
    groups = "".join(_group(document, tag) for tag in document["tags"])
    schemas = "".join(_schema(name, schema) for name, schema in document["components"]["schemas"].items())
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])} API</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{_prose(info['description'])}"
        ' The same for machines: <a href="/openapi.json">openapi.json</a>.</p>'
        "<p>Send your key as <code>Authorization: Bearer sk-fb-...</code> or as <code>x-api-key</code>.</p>"
        f"{groups}<h2>Schemas</h2>{schemas}</body></html>"
    )


def _group(document: Node, tag: dict[str, str]) -> str:
    operations = [
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method != "servers" and tag["name"] in operation["tags"]
    ]
    return f"<h2>{escape(tag['name'])}</h2><p>{_prose(tag['description'])}</p>{''.join(operations)}"


def _operation(path: str, method: str, operation: Node) -> str:
    parameters = [
        (f"<code>{escape(each['name'])}</code> {escape(each['in'])}", _prose(each["description"]))
        for each in operation.get("parameters", [])
    ]
    answers = [
        (f"<code>{escape(status)}</code>", f"{_prose(answer['description'])} {_links(answer)}")
        for status, answer in operation["responses"].items()
    ]
    body = operation.get("requestBody")
    return (
        f'<details><summary><span class="method {method}">{method.upper()}</span><b>{escape(path)}</b>'
        f"{escape(operation['summary'])}</summary>"
        + (f"<p>Body: {_links(body)}</p>" if body else "")
        + (f"<h4>Parameters</h4>{_table(parameters)}" if parameters else "")
        + f"<h4>Answers</h4>{_table(answers)}</details>"
    )


def _links(holder: Node) -> str:
    """The schemas of a body or an answer, linked to where they stand."""
    names = [
        content["schema"]["$ref"].rpartition("/")[2]
        for content in holder.get("content", {}).values()
        if "$ref" in content["schema"]
    ]
    return " ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in names)


def _schema(name: str, schema: Node) -> str:
    text = msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()
    return f'<details id="{escape(name)}"><summary><b>{escape(name)}</b></summary><pre>{escape(text)}</pre></details>'


def _table(rows: list[tuple[str, str]]) -> str:
    return f"<table>{''.join(f'<tr><td>{first}</td><td>{second}</td></tr>' for first, second in rows)}</table>"


def _prose(text: str) -> str:
    """Text with its code in backquotes marked as such."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
