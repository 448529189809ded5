#!/usr/bin/env bash
# openrouter 1.3.84 (PyPI, the official SDK): a client is made with `server_url`, "The server URL to use for all methods"
# (its docstring), and every call of it is documented to take another one.
#
# Guessed: with `server_url` set, every call goes there.
# Seen: `alpha.decisions.create` goes to https://openrouter.ai/api/alpha/decisions all the same; only a `server_url` in the call
# itself is heeded. Who points the SDK at a gateway never sees that call there, and gets an error of OpenRouter's which looks
# like the gateway's. (@openrouter/sdk 1.3.19 on npm has the same in its source.)
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'openrouter==1.3.84'

told=$("$folder/venv/bin/python" - <<'PY'
import httpx
from openrouter import OpenRouter


def answer(request):
    print(request.url.host)
    return httpx.Response(401, json={"error": {"code": 401, "message": "no"}})


# Nothing leaves this process.
client = httpx.Client(transport=httpx.MockTransport(answer))
with OpenRouter(server_url="http://gateway.test/api/v1", api_key="key", client=client) as sdk:
    for call in (sdk.models.count, lambda: sdk.alpha.decisions.create(model="m", questions={}, state="s")):
        try:
            call()
        except Exception:
            pass
PY
)
echo "$told"
[ "$told" = "gateway.test
openrouter.ai" ] || { echo "this has changed"; exit 1; }
