"""How each wire format is answered: the simulated upstream's counterpart of a module in `farebox.core.formats`.

Each has `read` (what an order asks for; raises Refusal, and what msgspec raises for other JSON), `whole` (the body of
an answer), `refused` (that of a refusal), and where the format is streamed `events` (each without the empty line at its
end) and the keep-alive `COMMENT`. One that is not of talks or vectors `MAKES` what is among a model's outputs, by
`make`.
"""

from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from farebox.core import formats
from farebox.core.formats.table import FORMATS
from farebox.simulator import chat, embeddings, images, messages, rerank, responses, speech, transcriptions, videos

SIMULATED: Mapping[formats.Format, ModuleType] = MappingProxyType(
    {
        formats.chat: chat,
        formats.messages: messages,
        formats.responses: responses,
        formats.embeddings: embeddings,
        formats.rerank: rerank,
        formats.images: images,
        formats.speech: speech,
        formats.transcriptions: transcriptions,
        formats.videos: videos,
    }
)

AT: Mapping[str, ModuleType] = MappingProxyType(
    {path: SIMULATED[wire] for path, wire in FORMATS.items() if wire in SIMULATED}
)
"""By the path under the base. A format that has no counterpart is not simulated."""
