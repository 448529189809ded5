#!/usr/bin/env bash
# litellm 1.108.7 (PyPI): a model with `mock_response` in its configuration answers with that text, streamed, too
# (docs.litellm.ai, "Mock Completion() Responses - Save Testing Costs").
#
# Guessed: `/v1/messages` answers with it, too, as a stream where `stream` is true, and counts its words.
# Seen: it is a whole message, whatever `stream` says, always with the id `msg_013Zva2CMHLNnXjNJJKqJ2EF` and always with 2,095
# tokens in and 503 out. A client that asked for a stream gets JSON with status 200; a gateway that keeps records by the
# answer's id finds the same one for every order. Chat completions are streamed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'litellm==1.108.7'

told=$(LITELLM_LOCAL_MODEL_COST_MAP=True "$folder/venv/bin/python" - <<'PY'
import asyncio

import litellm


async def ask(text):
    answer = await litellm.anthropic.messages.acreate(
        model="anthropic/any",
        messages=[{"role": "user", "content": text}],
        max_tokens=100,
        stream=True,
        mock_response="Hello",
        api_key="none",
    )
    print(type(answer).__name__, answer["id"], answer["usage"]["input_tokens"], answer["usage"]["output_tokens"])


asyncio.run(ask("Hello"))
asyncio.run(ask("Something much longer than that, in more words"))
PY
)
echo "$told"
[ "$told" = "dict msg_013Zva2CMHLNnXjNJJKqJ2EF 2095 503
dict msg_013Zva2CMHLNnXjNJJKqJ2EF 2095 503" ] || { echo "this has changed"; exit 1; }
