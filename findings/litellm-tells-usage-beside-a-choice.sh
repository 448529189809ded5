#!/usr/bin/env bash
# litellm 1.108.7 (PyPI): the chunk of a stream that tells the usage, where an order asks for it by
# `stream_options.include_usage`, has an empty list of choices (OpenAI's API reference, "Create chat completion",
# `stream_options`: "the `choices` field will always be an empty array").
#
# Guessed: the last chunk has `"choices": []` and `usage`.
# Seen: it has one choice with an empty delta beside the usage (reported as BerriAI/litellm #28735); its proxy sends the same
# as `"choices":[{"index":0,"delta":{}}]`. Who tells a usage chunk by its lack of choices, to keep it from a client that did not
# ask for it, does not find it; a strict reader misses `finish_reason` in it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'litellm==1.108.7'

told=$(LITELLM_LOCAL_MODEL_COST_MAP=True "$folder/venv/bin/python" - <<'PY'
import litellm

stream = litellm.completion(
    model="openai/any",
    messages=[{"role": "user", "content": "Hello"}],
    mock_response="Hello",
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    if getattr(chunk, "usage", None):
        print("choices beside the usage:", len(chunk.choices))
PY
)
echo "$told"
[ "$told" = "choices beside the usage: 1" ] || { echo "this has changed"; exit 1; }
