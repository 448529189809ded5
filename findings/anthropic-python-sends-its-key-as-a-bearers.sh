#!/usr/bin/env bash
# anthropic 2.13.0 (PyPI, the official SDK): Anthropic's API takes a key in the header `x-api-key`
# (https://docs.anthropic.com/en/api/overview, "Authentication"), and the SDK has two settings for a credential, `api_key`
# and `auth_token`, of which the latter is for a bearer's token.
#
# Guessed: `api_key` is sent as `x-api-key`, `auth_token` as `Authorization: Bearer`.
# Seen: both are sent as `Authorization: Bearer`, and there is no `x-api-key`. A server that stands in for Anthropic and
# looks for a key in `x-api-key` alone refuses every call of this SDK with 401.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'anthropic==2.13.0'

told=$("$folder/venv/bin/python" - <<'PY'
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import anthropic


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        print("x-api-key" in self.headers, self.headers["authorization"])
        self.send_response(401)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
try:
    anthropic.Anthropic(base_url=url, api_key="key", max_retries=0).messages.create(
        model="m", max_tokens=1, messages=[{"role": "user", "content": "Hello"}]
    )
except anthropic.AuthenticationError:
    pass
PY
)
echo "$told"
[ "$told" = "False Bearer key" ]
