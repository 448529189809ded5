"""OpenAI's embeddings, simulated: without an id."""

import msgspec

from farebox.core.errors import Refusal
from farebox.simulator import embeddings
from farebox.simulator.embeddings import MAKES, Request
from farebox.simulator.faults import Faults
from farebox.simulator.openai_words import DATED, read_known, wrong
from farebox.simulator.talk import Said

__all__ = ["MAKES", "read", "whole"]

_KNOWN = frozenset(("dimensions", "encoding_format", "input", "model", "user"))

_decode = msgspec.json.Decoder(Request).decode


def _unknown(name: str) -> Refusal:
    return wrong(f"Unrecognized request argument supplied: {name}")


def read(body: bytes) -> Request:
    read_known(body, _KNOWN, _decode, _unknown)
    return embeddings.read(body)


def whole(request: Request, said: Said, generation_id: str, faults: Faults) -> bytes:
    body = msgspec.json.decode(embeddings.whole(request, said, generation_id, faults))
    del body["id"]
    body["model"] = said.model.id + DATED
    if "usage" in body:
        body["usage"] = {"prompt_tokens": said.prompt_tokens, "total_tokens": said.prompt_tokens}
    return msgspec.json.encode(body)
