"""A tiny model of random weights, made here, and served by llama.cpp's own server: the same weights each time.

It prints its address, and serves until its input ends.
"""

import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import xllamacpp

WIDTH, HIDDEN, LAYERS, HEADS, CONTEXT = 32, 64, 2, 4, 512
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def vocabulary() -> tuple[list[str], list[int]]:
    """A token for each byte, and one for each printable character; what kind each is."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL] + [gguf.TokenType.BYTE] * 256
    tokens += ["\u2581", *(chr(code) for code in range(33, 127))]
    return tokens, kinds + [gguf.TokenType.NORMAL] * (len(tokens) - len(kinds))


def describe(writer: gguf.GGUFWriter, tokens: list[str], kinds: list[int]) -> None:
    """That it is of Llama's architecture, and how it reads and writes."""
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)


def write_model(path: Path) -> None:
    tokens, kinds = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    describe(writer, tokens, kinds)
    chance = np.random.default_rng(7)

    def weights(name: str, *shape: int) -> None:
        writer.add_tensor(name, chance.normal(0, 0.5, shape).astype(np.float32))

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(WIDTH, np.float32))

    weights("token_embd.weight", len(tokens), WIDTH)
    weights("output.weight", len(tokens), WIDTH)
    ones("output_norm.weight")
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights(f"blk.{layer}.{name}.weight", WIDTH, WIDTH)
        weights(f"blk.{layer}.ffn_gate.weight", HIDDEN, WIDTH)
        weights(f"blk.{layer}.ffn_up.weight", HIDDEN, WIDTH)
        weights(f"blk.{layer}.ffn_down.weight", WIDTH, HIDDEN)
        ones(f"blk.{layer}.attn_norm.weight")
        ones(f"blk.{layer}.ffn_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.gguf"
        write_model(path)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.model_alias = {"tiny"}
        params.n_ctx = CONTEXT * 2
        params.n_parallel = 2
        params.n_predict = 64
        params.n_batch = params.n_ubatch = CONTEXT
        params.cpuparams.n_threads = 1
        params.warmup = False
        params.sampling.temp = 0
        server = xllamacpp.Server(params)
        print(server.listening_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
