#!/usr/bin/env bash
# llama.cpp's server, as in xllamacpp 2026.10.11549 (PyPI; llama.cpp b11549): `POST /v1/responses` streams the events of
# OpenAI's Responses API, where `response.created` comes once and events of a part have `output_index`, `content_index` and
# `sequence_number` (OpenAI's API reference, "Streaming events"; required members in its SDKs).
#
# Guessed: OpenAI's SDK reads the stream: `responses.stream(...)` gives the final response.
# Seen: no event has `output_index`, `content_index` or `sequence_number` (reported as ggml-org/llama.cpp #20607), and the SDK's
# helper (openai 3.54.0) stops with a TypeError. An agent that speaks only responses cannot be pointed at such a server; its
# chat completions and messages are in order, so a gateway that translates can serve it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'xllamacpp==2026.10.11549' 'gguf==0.19.0' 'openai==3.54.0'

told=$("$folder/venv/bin/python" - "$folder/tiny.gguf" <<'PY'
import json
import sys
import urllib.request

import gguf
import numpy as np
import openai
import xllamacpp

# A model of random weights, which says letters.
TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"abcdefghijklmnopqrstuvwxyz"]
CONTROL, BYTE, NORMAL = gguf.TokenType.CONTROL, gguf.TokenType.BYTE, gguf.TokenType.NORMAL
writer = gguf.GGUFWriter(sys.argv[1], "llama")
writer.add_context_length(256)
writer.add_embedding_length(32)
writer.add_block_count(1)
writer.add_feed_forward_length(64)
writer.add_head_count(4)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_dimension_count(8)
writer.add_vocab_size(len(TOKENS))
writer.add_tokenizer_model("llama")
writer.add_token_list(TOKENS)
writer.add_token_scores([0.0] * len(TOKENS))
writer.add_token_types([gguf.TokenType.UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * 26)
writer.add_bos_token_id(1)
writer.add_eos_token_id(2)
writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
random = np.random.default_rng(7)
shapes = {"token_embd": (len(TOKENS), 32), "output": (len(TOKENS), 32), "blk.0.ffn_down": (32, 64)}
shapes |= {f"blk.0.ffn_{name}": (64, 32) for name in ("gate", "up")}
shapes |= {f"blk.0.attn_{name}": (32, 32) for name in ("q", "k", "v", "output")}
for name, shape in shapes.items():
    weights = random.normal(0, 0.5, shape).astype(np.float32)
    if name == "output":
        weights[: -26] = 0  # only letters
        weights[-26:] = np.abs(weights[-26:])
    writer.add_tensor(f"{name}.weight", weights)
for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
    writer.add_tensor(f"{name}.weight", np.ones(32, np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx = 256
params.warmup = False
server = xllamacpp.Server(params)
url = server.listening_address

body = json.dumps({"model": "m", "input": "Hello", "max_output_tokens": 5, "stream": True}).encode()
request = urllib.request.Request(f"{url}/v1/responses", body, {"content-type": "application/json"})
lines = urllib.request.urlopen(request).read().decode(errors="replace").splitlines()
events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
for name in ("output_index", "content_index", "sequence_number"):
    print(f"with {name}:", sum(name in event for event in events))
try:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none").responses.stream(model="m", input="Hello") as stream:
        stream.get_final_response()
    print("the SDK reads it")
except TypeError:
    print("the SDK stops with a TypeError")
PY
)
told=$(grep -E "^(with|the SDK)" <<<"$told")
echo "$told"
[ "$told" = "with output_index: 0
with content_index: 0
with sequence_number: 0
the SDK stops with a TypeError" ] || { echo "this has changed"; exit 1; }
