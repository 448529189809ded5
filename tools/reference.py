"""The files that are made from the code: `python -m tools.reference`, or `--check` that they are up to date."""

import ast
import json
import sys
from collections.abc import Iterable, Iterator
from inspect import getsource
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from msgspec import NODEFAULT, structs
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from farebox.cli.commands import app
from farebox.core.translate import TABLES
from farebox.core.translate.answers import chat, messages
from farebox.core.translate.members import LEFT_OUT_MAX, Cell
from farebox.core.translate.orders.to_messages import ANSWER_TOKENS
from farebox.core.written import Table
from farebox.settings import GuardSettings, PlanSettings, Settings, TraitSettings, UpstreamSettings
from farebox.simulator import faults, models, table, talk
from farebox.simulator.anthropic import MODELS as ANTHROPIC_MODELS
from farebox.simulator.openai import MODELS as OPENAI_MODELS
from farebox.web import openapi
from tools import openrouter_api

ROOT = Path(__file__).parent.parent
MADE = "<!-- Made from the code by `make docs`. -->\n"


def settings_page() -> str:
    rows = [
        f"| `FAREBOX_{name.upper()}` | `{name}` | {default} | {text} |"
        for name, default, text in _members(Settings)
        if name not in ("plans", "guards", "upstreams")
    ]
    guard_rows = [f"| `{name}` | {default} | {text} |" for name, default, text in _members(GuardSettings)]
    plan_rows = [f"| `{name}` | {default} | {text} |" for name, default, text in _members(PlanSettings)]
    upstream_rows = [f"| `{name}` | {default} | {text} |" for name, default, text in _members(UpstreamSettings)]
    trait_rows = [f"| `{name}` | {text} |" for name, _, text in _members(TraitSettings)]
    return f"""{MADE}
# Settings

From the command line, then the environment, then `farebox.toml` in the working folder (or the file that `FAREBOX_CONFIG`
names), then the default.

| environment | `farebox.toml` | default | |
|---|---|---|---|
{chr(10).join(rows)}

`OPENROUTER_API_KEY` is the operator's own key at the upstream. It is read from the environment alone, so that it stands in
no file, and it is never shown.

## Plans

`paying` (an event at $0.00001) and `free` (ten times that, at most 2,048 tokens an answer) are built in. Others are
declared in `farebox.toml`, under `[plans.NAME]`:

| member | default | |
|---|---|---|
{chr(10).join(plan_rows)}

```toml
[plans.resale]
multiplier = "1.25"
answer_tokens_max = 4096
models = ["openai/*", "anthropic/claude-*"]
```

## Guards

[Guards](../guards.md) are declared under `[guards.NAME]`, and asked in the order in which they stand there:

| member | default | |
|---|---|---|
{chr(10).join(guard_rows)}

## Upstreams

Several, or one of which there is more to say than `upstream_url` does, are declared in `farebox.toml`, under
`[upstreams.NAME]`. Changes to them are taken up while orders run. [A block to paste for each](../upstreams.md).

| member | default | |
|---|---|---|
{chr(10).join(upstream_rows)}

Of all models of an upstream, or of some of them in `per_model`, may be declared [what orders ask for](../routing.md#what-is-declared-of-a-model);
none has a default, since what is not declared is not known:

| member | |
|---|---|
{chr(10).join(trait_rows)}
"""


def _members(kind: type[Table]) -> Iterator[tuple[str, str, str]]:
    """A table's own members, their defaults, and what is said of them."""
    defaults = {member.name: member.default for member in structs.fields(kind)}
    for name, _, text in _documented(kind):
        default = defaults[name]
        yield name, "" if default in (None, NODEFAULT) else f"`{default}`", text


def cli_page() -> str:
    parts = [MADE, "# Commands\n", "What was typed or set wrong ends with code 2, all other trouble with 1.\n"]
    for words in _commands(get_command(app)):
        said = CliRunner().invoke(app, [*words, "--help"], prog_name="farebox", env={"COLUMNS": "80"}, color=False)
        parts.append(f"## `farebox {' '.join(words)}`\n\n```text\n{said.stdout.strip()}\n```\n")
    return "\n".join(line.rstrip() for line in "\n".join(parts).splitlines())


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not isinstance(command, TyperGroup):
        yield path
        return
    context = typer.Context(command)
    for name in command.list_commands(context):
        yield from _commands(command.get_command(context, name), (*path, name))


def simulator_page() -> str:
    model_rows = [
        f"| `{m.id}` | {m.prompt} | {m.completion} | {_extra(m)} | {m.description} |" for m in models.MODELS.values()
    ]
    fault_rows = [f"| `{name}` | {text} |" for name, text in _documented_members(faults.Faults)]
    return f"""{MADE}
# The simulated upstream

It stands in for OpenRouter: inside `farebox serve` where no upstream is configured, or alone with `farebox simulate`.
[It stands in for others, too](#openai-and-anthropic). It
answers `POST` of {" ".join(f"`{path}`" for path in table.AT)} under `/api/v1`, and OpenRouter's lists with their
filters, in OpenRouter's shapes, deterministically. Orders demand a key (any). What an order cost is told by
`GET /api/v1/generation?id=`, a while after its end and only to the key that asked; `GET /books`, a page of its own, tells
what was charged for each generation, to compare other books with. No money moves.

## Models

Prices are USD a token.

| model | prompt | answer | also | |
|---|---|---|---|---|
{chr(10).join(model_rows)}

## Tools

A model that is offered tools calls one before it answers: the one that the order's `tool_choice` names, else the first whose
name stands in the prompt, else the first that needs one argument, else the first. The arguments are valid under the tool's JSON
schema, with the prompt wherever a text is wanted: an agent that is asked `touch made.txt` does that in its shell. After the
tool's result it says back what was asked; after {talk.CALLS_MAX} results in one talk it calls none any more. With the fault `calls=2`
it calls two at once.

An order that asks for an answer under a JSON schema gets one, with the prompt wherever a text is wanted.

## Faults

Ask for them per request, in the header `X-OpenRouter-Simulate: cut-at-event=3,token-ms=20` (Farebox passes it on) or after
the model's name, where an SDK sends no headers of yours: `sim/echo:cut-at-event=3,token-ms=20`. Events and bytes count
from 0.

| fault | |
|---|---|
{chr(10).join(fault_rows)}

## OpenAI and Anthropic

The same program stands in for OpenAI at `/openai/v1` and for Anthropic at `/anthropic` (which SDKs are given as their base
URLs); with `farebox simulate --as openai` and `--as anthropic` also at its root. As they do, it tells no costs, and a stream's
usage as OpenAI only when that was asked for; it refuses members that it does not know, in their words; it names generations
`chatcmpl-...`, `resp_...`, `msg_...`, and OpenAI's models answer under a dated name; its responses seal thoughts where `include` asks
for `reasoning.encrypted_content`, and take none back without. As Anthropic it demands `anthropic-version`,
`max_tokens`, and each tool's result right behind its call; thinks only where `thinking` asks for it, and checks the signatures of
what it thought before; sends pings; and counts what is marked by `cache_control` as written to its cache once, and read from it
later. What was charged, and for which tokens, is told by `GET /books/usage`.

| OpenAI's models | Anthropic's models |
|---|---|
| {_listed(OPENAI_MODELS)} | {_listed(ANTHROPIC_MODELS)} |
"""


def _listed(named: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in named)


def _extra(model: models.Model) -> str:
    extras = []
    if model.request != "0":
        extras.append(f"{model.request} an order")
    if model.image_output != "0":
        extras.append(f"{model.image_output} a token of picture")
    return ", ".join(extras)


def _documented_members(kind: type) -> Iterator[tuple[str, str]]:
    """A class's members as faults are named, with the values that there are."""
    for name, annotation, text in _documented(kind):
        words = [n.value for n in ast.walk(annotation) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        values = f" One of {', '.join(f'`{word}`' for word in words)}." if words else ""
        yield name.replace("_", "-"), text + values


def _documented(kind: type) -> Iterator[tuple[str, ast.expr, str]]:
    """A class's own members, their types, and the strings under them."""
    (body,) = [node.body for node in ast.parse(getsource(kind)).body if isinstance(node, ast.ClassDef)]
    for member, text in pairwise(body):
        if isinstance(member, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            assert isinstance(member.target, ast.Name)
            yield member.target.id, member.annotation, " ".join(str(text.value.value).split())


TITLES = {"chat": "chat completions", "messages": "messages", "responses": "responses"}


def formats_page() -> str:
    tables = "\n\n".join(
        f"### Orders in {TITLES[source]}\n\n" + _member_table(source, [each for each in TABLES if each != source])
        for source in TABLES
    )
    stops = "\n".join(
        f"| {meaning} | {_words(chat.STOPS, stop)} | {_words(messages.STOPS, stop)} | {status} |"
        for stop, (meaning, status) in STOPS.items()
    )
    return f"""{MADE}
# Formats, and what becomes of them in another

Farebox takes orders as chat completions (OpenAI's), messages (Anthropic's) and responses (OpenAI's newer ones). Where an order's
upstream speaks its format, its bytes pass, and so do the answer's. Where it does not, the order is translated into a format
that the upstream speaks, and the answer, whole or streamed, back. The fare is that of the upstream's own usage, so it is the
same through every format.

- What the upstream's format cannot say, and the answer would be another without, is refused: 400, with the member's name and what
  would be right. Nothing was ordered then.
- What can be left out without harm is left out, and named in the answer's header `X-Farebox-Left-Out` (the first {LEFT_OUT_MAX} of
  them; a name that fits no header is `?`). So are members that nobody knows.
- `null` says nothing. Neither does a value that is the default anyway, such as `n: 1`.
- Texts, schemas, arguments and numbers are copied byte for byte: `1.50` stays `1.50`.
- A turn of the assistant's of which nothing is left (its answer ended within its thoughts, which another host does not take; or it
  was empty) is left out: hosts refuse such.
- A call's id has no other characters to Anthropic than it takes: `functions.f:0` is `functions_2e_f_3a_0` there.

## Orders

A path names a member: in brackets stands the kind of an element, its role or its `type`. `part[text]` and `block[text]` are such an
element wherever it stands. "The same" is the member of that name, in the other format's shape.

{tables}

Thinking is asked for by a word (`effort`), which OpenAI's formats and Anthropic's share, or by a budget in tokens, which is
Anthropic's and OpenRouter's: to OpenAI it becomes the nearest word. `minimal` is `low` to Anthropic, and `none` turns thinking off.
Messages demand a cap: an order without one gets {ANSWER_TOKENS:,} tokens, and its thinking budget on top, but
no more than the model is listed with.

## Thoughts on the next turn

A host takes back what its model thought under its own seal only: Anthropic's `signature`, OpenAI's `encrypted_content`. In another
format's place for a seal Farebox puts whose it is, what it is called there, and the seal itself, with `|` between them
(`openai-responses-v1|rs_1|gAAA...`). A caller who sends its answers back as they came, as every SDK does, so gives each host its own
again. Thoughts of another host, from before a fallback for instance, are left out and named.

| | chat completions | messages | responses |
|---|---|---|---|
| a thought | `reasoning`, `reasoning_details[]` of type `reasoning.text` or `reasoning.summary` | `thinking` | `reasoning`, in its `summary` |
| all sealed | `reasoning.encrypted` | `redacted_thinking` | `reasoning` with an empty `summary` |

From hosts that speak chat completions, `reasoning` and `reasoning_content` are read, and sent back under the name that they came under.

## Answers

| it ended because | chat completions | messages | responses |
|---|---|---|---|
{stops}

- A refusal in the model's words is `refusal` in chat completions and a part `refusal` in responses, both of them answers that ended
  well; in messages it is text, and `stop_reason` is `refusal`.
- Usage: chat completions and responses count what was read from a cache, or written to it, within the prompt; messages beside it.
  What OpenRouter adds (`cost`, `is_byok`, `cost_details`) is kept under each format's names, digit by digit. Parts that the
  host leaves out (tokens written to a cache, of reasoning) are 0, since strict SDKs want them.
- Usage that the upstream does not tell, or that cannot be right, is not made up: chat completions and responses leave it out. Messages
  must have `input_tokens` and `output_tokens`: they are 0, all else in it is null, and `"is_unknown": true` stands beside them. The
  order's cost is not known then, and it stays open. (What a message's stream begins with is never its usage: that comes in
  `message_delta`.)
- A citation of a web page is an annotation `url_citation` in OpenAI's formats, and a `web_search_result_location` in messages;
  citations of documents stay with Anthropic. The odds of tokens (`logprobs`) go between chat completions and responses.
- Arguments of a call that a host sends as an object become its text. Those that are no JSON object stand in a message as
  `{{"INVALID_JSON": "..."}}`; in a stream they pass as they come.
- A caller who asked for a stream gets one, and a caller who did not gets none, whichever the host sends.
- Other members of answers are dropped.

In a stream each event becomes one at least, at once, but for calls of chat completions and responses that come in turns: the second
waits until the first one's arguments are known to be whole, at the latest until something else is said, since messages and responses
have one after the other. Keep-alives become the format's own. An error
within a stream becomes the one on which that format's readers stop and order nothing again; a stream that is cut off ends in one,
so that half an answer does not look like a whole.
"""


STOPS = {
    "stop": ("all was said", "`completed`"),
    "sequence": ("of a stop sequence", "`completed`"),
    "length": ("of its cap, or the context", "`incomplete`: `max_output_tokens`"),
    "tools": ("a tool is called", "`completed`"),
    "filter": ("of a refusal or a filter", "`incomplete`: `content_filter`"),
    "pause": ("the host's own tools pause", "`completed`"),
}


def _words(stops: dict[str, str], stop: str) -> str:
    return ", ".join(f"`{word}`" for word, found in stops.items() if found == stop) or "as if all was said"


def _member_table(source: str, targets: list[str]) -> str:
    heads = " | ".join(f"in {TITLES[target]}" for target in targets)
    rows = [
        f"| `{row.path}` | " + " | ".join(_fate(row.cells[target]) for target in targets) + " |"
        for row in TABLES[source]
    ]
    return "\n".join([f"| member | {heads} |", "|---|---|---|", *rows])


def _fate(cell: Cell) -> str:
    but = [f"`{each.decode()}`" for each in cell.unless if each != b"null"]
    unless = f" (but for {', '.join(but)})" if but else ""
    match cell.fate:
        case "as":
            return f"`{cell.text}`"
        case "made":
            return cell.text
        case "left":
            return f"left out{unless}"
        case "refused":
            return f"refused{unless}: {cell.text}"
        case "taken":
            return f"not sent: {cell.text}"


def actor_openapi() -> str:
    """What the Actor's server answers, for the platform's own pages."""
    return json.dumps(openapi.document(has_run_api=False), indent=1)


def api_page() -> str:
    """Written by hand, but for its table."""
    return openrouter_api.with_table((ROOT / API).read_text())


API = "docs/api.md"

PAGES = {
    API: api_page,
    "docs/reference/settings.md": settings_page,
    "docs/reference/commands.md": cli_page,
    "docs/reference/simulator.md": simulator_page,
    "docs/formats.md": formats_page,
    ".actor/openapi.json": actor_openapi,
}


def main() -> None:
    stale = []
    for name, make in PAGES.items():
        path = ROOT / name
        text = make().strip() + "\n"
        if "--check" in sys.argv:
            stale += [name] if not path.exists() or path.read_text() != text else []
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if stale:
        sys.exit(f"out of date, run `make docs`: {', '.join(stale)}")


if __name__ == "__main__":
    main()
