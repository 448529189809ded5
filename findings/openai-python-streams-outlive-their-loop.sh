#!/usr/bin/env bash
# openai 3.57.0 (PyPI, the official SDK): `for event in stream` is how its README reads a stream. The README of its twin for
# JavaScript says of the same loop: "If you need to cancel a stream, you can `break` from the loop"
# (https://github.com/openai/openai-node, "Streaming responses").
#
# Guessed: in Python, too, a stream that is left by `break`, or by `return`, and that nothing names any more is closed at once; as
# those of anthropic 2.14.0 and openrouter 1.3.84 are.
# Seen: it is not. The stream and its own iterator hold each other, so only the garbage collector finds them, and a program that
# then waits for something else makes no garbage: the model talks on to the end, for nobody, and all of it is billed. Leaving a
# `with` block, or `stream.close()`, closes the connection at once.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"; kill %1 2>/dev/null || true' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'openai==3.57.0' 'anthropic==2.14.0' 'openrouter==1.3.84'

cat > "$folder/server.py" <<'PY'
"""Streams twenty words, a tenth of a second apart; GET tells how many went out to each caller."""
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = 20
sent = {}


class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(json.dumps(sent).encode())

    def do_POST(self):
        name = json.loads(self.rfile.read(int(self.headers["content-length"])))["model"]
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.connection.settimeout(0.1)
        for sent[name] in range(1, WORDS + 1):
            self.wfile.write(self.messages() if self.path.endswith("/messages") else self.chat())
            self.wfile.flush()
            try:
                if not self.connection.recv(1):
                    break
            except TimeoutError:
                pass

    def chat(self):
        choice = {"index": 0, "delta": {"role": "assistant", "content": "word "}, "finish_reason": None}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    def messages(self):
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}}
        return b"event: content_block_delta\ndata: " + json.dumps(delta).encode() + b"\n\n"

    def answer(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
print(server.server_port, flush=True)
server.serve_forever()
PY
"$folder/venv/bin/python" -u "$folder/server.py" > "$folder/port" &
until [ -s "$folder/port" ]; do sleep 0.1; done

cat > "$folder/caller.py" <<'PY'
"""Leaves a stream of one SDK behind its third event, then waits."""
import sys
import time

here, name = f"http://127.0.0.1:{sys.argv[1]}", sys.argv[2]
turns = [{"role": "user", "content": "Say twenty words."}]


def leave(stream):
    for number, _ in enumerate(stream):
        if number == 2:
            break


def ask():
    if name.startswith("openai"):
        from openai import OpenAI

        client = OpenAI(base_url=here, api_key="key")
        return client, client.chat.completions.create(model=name, messages=turns, stream=True)
    if name.startswith("anthropic"):
        from anthropic import Anthropic

        client = Anthropic(base_url=here, api_key="key")
        return client, client.messages.create(model=name, max_tokens=99, messages=turns, stream=True)
    from openrouter import OpenRouter

    client = OpenRouter(server_url=here, api_key="key")
    return client, client.chat.send(model=name, messages=turns, stream=True)


def order():
    """The client, which a program keeps; not the stream."""
    client, stream = ask()
    if name == "openai-with":
        with stream:
            leave(stream)
    else:
        leave(stream)
    return client


kept = order()
time.sleep(5)
PY
port=$(cat "$folder/port")
for name in openai anthropic openrouter openai-with; do
    "$folder/venv/bin/python" "$folder/caller.py" "$port" "$name"
done
told=$("$folder/venv/bin/python" - "$port" <<'PY'
import json
import sys
import urllib.request

with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}") as answer:
    for name, words in json.load(answer).items():
        print(f"{name}: {'to the end' if words == 20 else 'stopped'}")
PY
)
echo "$told"
[ "$told" = "openai: to the end
anthropic: stopped
openrouter: stopped
openai-with: stopped" ]
