"""The same order as code, for curl and the SDKs: on the playground, and where a new key is shown."""

import json
from typing import NamedTuple

from farebox.console.calls import TextOrder

A_KEY = "YOUR_KEY"
"""What stands for a key: none is ever written into a page but the one that shows a new one."""


class Snippet(NamedTuple):
    """Code that runs as it stands, once the key in it is one."""

    name: str
    code: str


def snippets(order: TextOrder, address: str, key: str = A_KEY) -> list[Snippet]:
    """`address` is the gateway's, without a path."""
    base, root = f"{address}/api/v1", f"{address}/api"
    curl = Snippet("curl", _curl(order, base, key))
    match order.spoken:
        case "messages":
            return [
                curl,
                Snippet("Anthropic's SDK, Python", _anthropic_python(order, root, key)),
                Snippet("Anthropic's SDK, TypeScript", _anthropic_typescript(order, root, key)),
            ]
        case "chat":
            return [
                curl,
                Snippet("OpenAI's SDK, Python", _openai_chat_python(order, base, key)),
                Snippet("OpenAI's SDK, TypeScript", _openai_chat_typescript(order, base, key)),
                Snippet("OpenRouter's SDK, Python", _openrouter_chat_python(order, base, key)),
                Snippet("OpenRouter's SDK, TypeScript", _openrouter_chat_typescript(order, base, key)),
            ]
        case "responses":
            return [
                curl,
                Snippet("OpenAI's SDK, Python", _openai_responses_python(order, base, key)),
                Snippet("OpenAI's SDK, TypeScript", _openai_responses_typescript(order, base, key)),
            ]


def _curl(order: TextOrder, base: str, key: str) -> str:
    body = json.dumps(order.members, ensure_ascii=False, indent=2).replace("'", "'\\''")
    more = " -N" if order.streamed else ""
    return (
        f"curl{more} {base}{order.path} \\\n"
        f"  -H 'Authorization: Bearer {key}' \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d '{body}'"
    )


# Python


def _openai_chat_python(order: TextOrder, base: str, key: str) -> str:
    client = f"from openai import OpenAI\n\nclient = OpenAI(base_url={_text(base)}, api_key={_text(key)})\n"
    call = _python("client.chat.completions.create", order)
    if not order.streamed:
        return f"{client}answer = {call}\nprint(answer.choices[0].message.content)"
    return (
        f"{client}chunks = {call}\nfor chunk in chunks:\n    if chunk.choices:\n"
        '        print(chunk.choices[0].delta.content or "", end="", flush=True)\nprint()'
    )


def _openrouter_chat_python(order: TextOrder, base: str, key: str) -> str:
    client = (
        "from openrouter import OpenRouter\n\n"
        f"with OpenRouter(server_url={_text(base)}, api_key={_text(key)}) as client:\n"
    )
    call = _python("client.chat.send", order, indent=4)
    if not order.streamed:
        return f"{client}    answer = {call}\n    print(answer.choices[0].message.content)"
    return (
        f"{client}    with {call} as chunks:\n        for chunk in chunks:\n            if chunk.choices:\n"
        '                print(chunk.choices[0].delta.content or "", end="", flush=True)\n    print()'
    )


def _anthropic_python(order: TextOrder, root: str, key: str) -> str:
    client = f"from anthropic import Anthropic\n\nclient = Anthropic(base_url={_text(root)}, api_key={_text(key)})\n"
    if not order.streamed:
        call = _python("client.messages.create", order)
        return f'{client}answer = {call}\nprint("".join(part.text for part in answer.content if part.type == "text"))'
    call = _python("client.messages.stream", order, without=("stream",))
    return (
        f"{client}with {call} as stream:\n    for text in stream.text_stream:\n"
        '        print(text, end="", flush=True)\nprint()'
    )


def _openai_responses_python(order: TextOrder, base: str, key: str) -> str:
    client = f"from openai import OpenAI\n\nclient = OpenAI(base_url={_text(base)}, api_key={_text(key)})\n"
    call = _python("client.responses.create", order)
    if not order.streamed:
        return f"{client}answer = {call}\nprint(answer.output_text)"
    return (
        f'{client}events = {call}\nfor event in events:\n    if event.type == "response.output_text.delta":\n'
        '        print(event.delta, end="", flush=True)\nprint()'
    )


def _python(call: str, order: TextOrder, indent: int = 0, without: tuple[str, ...] = ()) -> str:
    """A call with the order's members, a line each."""
    margin = " " * indent
    lines = [
        f"{margin}    {name}={_literal(value, indent + 4)},\n"
        for name, value in order.members.items()
        if name not in without
    ]
    return f"{call}(\n{''.join(lines)}{margin})"


def _literal(value: object, indent: int) -> str:
    """A value as Python has it: for texts and whole numbers that is how JSON has it."""
    if isinstance(value, bool):
        return str(value)
    if not isinstance(value, list):
        return _text(value)
    margin = " " * indent
    return f"[\n{''.join(f'{margin}    {_text(each)},{chr(10)}' for each in value)}{margin}]"


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# TypeScript


def _openai_client(base: str, key: str) -> str:
    return (
        'import OpenAI from "openai";\n\n'
        f"const client = new OpenAI({{ baseURL: {_text(base)}, apiKey: {_text(key)} }});\n"
    )


def _openai_chat_typescript(order: TextOrder, base: str, key: str) -> str:
    client, call = _openai_client(base, key), f"await client.chat.completions.create({_object(order.members)})"
    return client + _chat_typescript(order, call)


def _openrouter_chat_typescript(order: TextOrder, base: str, key: str) -> str:
    names = {"max_tokens": "maxTokens"}
    members = {names.get(name, name): value for name, value in order.members.items()}
    client = (
        'import { OpenRouter } from "@openrouter/sdk";\n\n'
        f"const client = new OpenRouter({{ serverURL: {_text(base)}, apiKey: {_text(key)} }});\n"
    )
    return client + _chat_typescript(order, f"await client.chat.send({_object({'chatRequest': members})})")


def _chat_typescript(order: TextOrder, call: str) -> str:
    if not order.streamed:
        return f"const answer = {call};\nconsole.log(answer.choices[0].message.content);"
    return (
        f"const chunks = {call};\nfor await (const chunk of chunks) {{\n"
        '  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");\n}\nconsole.log();'
    )


def _anthropic_typescript(order: TextOrder, root: str, key: str) -> str:
    client = (
        'import Anthropic from "@anthropic-ai/sdk";\n\n'
        f"const client = new Anthropic({{ baseURL: {_text(root)}, apiKey: {_text(key)} }});\n"
    )
    call = f"await client.messages.create({_object(order.members)})"
    if not order.streamed:
        return (
            f"{client}const answer = {call};\nfor (const part of answer.content) {{\n"
            '  if (part.type === "text") console.log(part.text);\n}'
        )
    return (
        f"{client}const events = {call};\nfor await (const event of events) {{\n"
        '  if (event.type === "content_block_delta" && event.delta.type === "text_delta") {\n'
        "    process.stdout.write(event.delta.text);\n  }\n}\nconsole.log();"
    )


def _openai_responses_typescript(order: TextOrder, base: str, key: str) -> str:
    client, call = _openai_client(base, key), f"await client.responses.create({_object(order.members)})"
    if not order.streamed:
        return f"{client}const answer = {call};\nconsole.log(answer.output_text);"
    return (
        f"{client}const events = {call};\nfor await (const event of events) {{\n"
        '  if (event.type === "response.output_text.delta") process.stdout.write(event.delta);\n}\nconsole.log();'
    )


def _object(value: object, indent: int = 0) -> str:
    """A value as JavaScript has it, each member on a line of its own."""
    margin, inner = " " * indent, " " * (indent + 2)
    if isinstance(value, dict):
        lines = [f"{inner}{name}: {_object(each, indent + 2)},\n" for name, each in value.items()]
        return f"{{\n{''.join(lines)}{margin}}}"
    if isinstance(value, list):
        lines = [f"{inner}{_one_line(each)},\n" for each in value]
        return f"[\n{''.join(lines)}{margin}]"
    return _text(value)


def _one_line(value: object) -> str:
    assert isinstance(value, dict), value
    return "{ " + ", ".join(f"{name}: {_text(each)}" for name, each in value.items()) + " }"
