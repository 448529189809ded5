"""Texts that a tokenizer makes longer before it splits them into tokens.

A byte of the text that is split is at most a token. Tokenizers of T5 and XLM-R, and of the embedding models built on
them, first bring the text into Unicode's form NFKC (sentencepiece, `doc/normalization.md`), which makes some characters
longer: U+FDFA is three bytes, and eighteen characters of 33 bytes after it.
"""

import re
from functools import cache
from unicodedata import is_normalized, normalize

_MAY_GROW = ((0x80, 0x3400), (0xA640, 0xAC00), (0xF900, 0x10000), (0x1D100, 0x1D200), (0x1F100, 0x1F300))
"""The ranges that have such characters; CJK and Hangul, most of Unicode, have none. A test tries every character."""


def widened_bytes(text: str) -> int:
    """By how many bytes a text may become longer: 0 for nearly every one, found at no cost for ASCII."""
    if text.isascii() or is_normalized("NFKC", text):
        return 0
    pattern, growth = _growing()
    return sum(growth[character] for character in pattern.findall(text))


@cache
def _growing() -> tuple[re.Pattern[str], dict[str, int]]:
    """The characters that become longer, and each one's growth in bytes; computed when the first text needs it."""
    growth = {}
    for first, end in _MAY_GROW:
        for character in map(chr, range(first, end)):
            more = len(normalize("NFKC", character).encode()) - len(character.encode())
            if more > 0:
                growth[character] = more
    return re.compile(f"[{re.escape(''.join(growth))}]"), growth
