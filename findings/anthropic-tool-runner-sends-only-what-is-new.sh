#!/usr/bin/env bash
# anthropic 2.13.0 (PyPI, the official SDK): the Messages API is stateless, each request sends the whole conversation
# (https://docs.anthropic.com/en/api/messages-examples, "Multiple conversational turns"); `thread` is a beta member of it.
#
# Guessed: the tool runner (`client.beta.messages.tool_runner`), which asks for no beta by its caller's words, sends with a
# tool's result all that came before it.
# Seen: it adds `thread` to its requests by itself, and from the second on sends the result alone. A server that stands in for
# Anthropic and overlooks members that it does not know answers it without the conversation, and nothing says so. One that
# answers 400 with `error.details.error_code` = "thread_unsupported_request" is sent the whole conversation at once.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'anthropic==2.13.0'

told=$("$folder/venv/bin/python" - <<'PY'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import anthropic

seen = []


class Server(BaseHTTPRequestHandler):
    """Overlooks `thread`: calls the tool, then ends."""

    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["content-length"])))
        seen.append((order.get("thread", {}).get("type"), len(order["messages"])))
        call = {"type": "tool_use", "id": "toolu_1", "name": "now", "input": {}}
        content = [call] if len(seen) == 1 else [{"type": "text", "text": "It is noon."}]
        answer = {
            "id": f"msg_{len(seen)}",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": content,
            "stop_reason": "tool_use" if len(seen) == 1 else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@anthropic.beta_tool
def now() -> str:
    """What time it is."""
    return "noon"


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.server_port}", api_key="key", max_retries=0)
for _ in client.beta.messages.tool_runner(
    model="m", max_tokens=9, tools=[now], messages=[{"role": "user", "content": "What time is it?"}]
):
    pass
print(seen)
PY
)
echo "$told"
[ "$told" = "[('create', 1), ('continue', 1)]" ]
