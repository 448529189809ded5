"""How long audio is at most, from what it weighs."""

import binascii
import struct
from contextlib import suppress

PCM_BYTES_PER_SECOND = 32_000
"""What OpenRouter means by `pcm`: 16 bits, one channel, 16 kHz."""

BYTES_PER_SECOND_MIN = 750
"""The least that a second of audio weighs: Opus at 6 kbit/s, as low as it goes (RFC 6716, 2.1.1). MP3 goes down to
8 kbit/s."""

UNKNOWN_SECONDS = 3_600
"""What audio is taken to last that is not here: an hour. Where it lasts longer, the fare may be above its hold, and
flagged."""

_HEAD_CHARACTERS = 8 * 1024
"""How much of audio in base64 is looked at for a WAV's head; a multiple of four."""

_PLAIN = frozenset({1, 3, 6, 7, 0xFFFE})
"""The kinds of WAV (`wFormatTag`) in which each second weighs the same: whole numbers, floats, A-law, mu-law, and what
is one of these with more channels."""

_RATE_MAX, _CHANNELS_MAX, _BITS_MAX = 768_000, 64, 64


def seconds_ceil(base64: str, kind: str) -> int:
    """The most seconds that audio in base64 lasts. `kind` is what its sender says that it is: `mp3`, say."""
    size = len(base64) * 3 // 4 - base64[-2:].count("=")
    per_second = BYTES_PER_SECOND_MIN
    if kind == "pcm":
        per_second = PCM_BYTES_PER_SECOND
    elif kind in ("wav", "wave"):
        with suppress(ValueError):  # whatever it is
            per_second = _wav_bytes_per_second(binascii.a2b_base64(base64[:_HEAD_CHARACTERS])) or per_second
    return -(-size // per_second)


def _wav_bytes_per_second(head: bytes) -> int:
    """What a second of a plain WAV weighs; 0 where it is none. Not by the number that its head has for it: players go
    by the others."""
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return 0
    at = 12
    while at + 24 <= len(head):
        name, size = head[at : at + 4], int.from_bytes(head[at + 4 : at + 8], "little")
        if name == b"fmt ":
            tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", head, at + 8)
            is_sane = 0 < channels <= _CHANNELS_MAX and 0 < rate <= _RATE_MAX and 8 <= bits <= _BITS_MAX
            return int(channels * rate * (bits // 8)) if tag in _PLAIN and is_sane else 0
        if name == b"data":
            return 0
        at += 8 + size + size % 2
    return 0
