#!/usr/bin/env bash
# litellm 1.108.7 (PyPI): OpenRouter tells what an answer cost in `usage.cost`; litellm asks for that (`usage: {"include": true}`)
# and documents two ways to read a cost, `response._hidden_params["response_cost"]` and `litellm.completion_cost(response)`
# ("Completion Token Usage & Cost").
#
# Guessed: both tell the cost that OpenRouter told.
# Seen: the first tells it (0.5 here), the second multiplies the tokens by litellm's own prices and tells 0.0012 of the same
# answer; where litellm has no price for the model, it raises instead, with the cost standing in the answer. Budgets and
# callbacks use the first, scripts that follow the page on `completion_cost` the second: their sums differ.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'litellm==1.108.7'

told=$(LITELLM_LOCAL_MODEL_COST_MAP=True "$folder/venv/bin/python" - 2> "$folder/log" <<'PY'
import http.server
import json
import threading

import litellm

ANSWER = {
    "id": "gen-1",
    "object": "chat.completion",
    "created": 1,
    "model": "a/b",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100, "cost": 0.5},
}


class OpenRouter(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(ANSWER).encode())

    def log_message(self, *words):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), OpenRouter)
threading.Thread(target=server.serve_forever, daemon=True).start()
litellm.suppress_debug_info = True


def ask():
    return litellm.completion(
        model="openrouter/a/b",
        messages=[{"role": "user", "content": "Hello"}],
        api_base=f"http://127.0.0.1:{server.server_port}/api/v1",
        api_key="any",
    )


def computed(answer):
    try:
        return f"{litellm.completion_cost(answer):.4f}"
    except Exception as error:
        return type(error).__name__


answer = ask()
print("without a price:", answer._hidden_params["response_cost"], computed(answer))
PRICE = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "litellm_provider": "openrouter", "mode": "chat"}
litellm.register_model({"openrouter/a/b": PRICE})
answer = ask()
print("with a price:", answer._hidden_params["response_cost"], computed(answer))
PY
)
echo "$told"
[ "$told" = "without a price: 0.5 ModelNotMappedError
with a price: 0.5 0.0012" ] || { cat "$folder/log"; echo "this has changed"; exit 1; }
