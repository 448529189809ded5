#!/usr/bin/env bash
# langchain-openrouter 0.2.9 (PyPI, LangChain's class for OpenRouter): where a provider fails in the middle of a stream, the
# status is 200 already, and OpenRouter sends the error in a last chunk, beside a choice whose `finish_reason` is "error"
# (openrouter.ai/docs, "API Streaming", "Handling Errors During Streaming"). The class has words of its own for it:
# "OpenRouter API returned an error during streaming".
#
# Guessed: it raises, as ChatOpenAI of langchain-openai 1.7.4 does with the same stream.
# Seen: it raises only for an error without choices. The documented chunk passes for the end of the answer: half of it comes back
# as all of it, the error's code and message are dropped, and repeats, fallbacks and agents see a success. Who streams through it
# looks at `response_metadata["finish_reason"]`. Its twin for JavaScript, @langchain/openrouter, does the same (reported as
# langchain-ai/langchainjs #11699).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'langchain-openrouter==0.2.9' 'langchain-openai==1.7.4'

told=$("$folder/venv/bin/python" - <<'PY'
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from langchain_openai import ChatOpenAI
from langchain_openrouter import ChatOpenRouter

HEAD = {"id": "gen-1", "object": "chat.completion.chunk", "created": 1, "model": "a/b", "provider": "A"}
ERROR = {"code": 502, "message": "Provider disconnected"}


def choice(content, finish_reason=None):
    return {"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": finish_reason}


ENDS = {
    "with a choice": HEAD | {"choices": [choice("", "error")], "error": ERROR},
    "without choices": HEAD | {"choices": [], "error": ERROR},
}


class OpenRouter(BaseHTTPRequestHandler):
    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for chunk in (HEAD | {"choices": [choice("One, two,")]}, ENDS[order["model"]]):
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *words):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), OpenRouter)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/api/v1"
for end in ENDS:
    for kind in (ChatOpenAI, ChatOpenRouter):
        chat = kind(model=end, api_key="key", base_url=url, streaming=True)
        try:
            answer = chat.invoke("Count to ten")
            told = f"{answer.content!r}, finish_reason {answer.response_metadata['finish_reason']}"
        except Exception as error:
            told = f"raises {type(error).__name__}"
        print(f"error {end}, {kind.__name__}: {told}")
PY
)
echo "$told"
[ "$told" = "error with a choice, ChatOpenAI: raises APIError
error with a choice, ChatOpenRouter: 'One, two,', finish_reason error
error without choices, ChatOpenAI: raises APIError
error without choices, ChatOpenRouter: raises ValueError" ] || { echo "this has changed"; exit 1; }
