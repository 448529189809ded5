"""What a chat completion used, or embeddings. Sources: `CompletionUsage` of OpenAI's SDK (7.57), and what DeepSeek and
Moonshot call the cached tokens.

`prompt_tokens` has those of the cache, of pictures and of audio in it, `completion_tokens` those of reasoning. Of a
stream the last usage counts: some hosts tell the counts so far in every chunk. A stream's end is its `[DONE]`, or the
usage without a choice that OpenAI sends before it.
"""

import re
from collections.abc import Mapping
from typing import Any

from farebox.core.formats.counting import (
    Counts,
    Reading,
    Wrong,
    agreed,
    counts_in,
    details,
    members,
    needed,
    rest,
    terms_of,
    usage_in,
    value_of,
)
from farebox.core.sse import event_data
from farebox.core.usage import Unknown, Usage

_TELLS = re.compile(rb'(?<!\\)"(?:usage|error)"\s*:\s*[^n\s]')
_DONE = b"[DONE]"

_CACHED = ("prompt_cache_hit_tokens", "cached_tokens")
_KNOWN = ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_cache_miss_tokens", *_CACHED)
_IN = ("cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens", "text_tokens")
_PREDICTED = ("accepted_prediction_tokens", "rejected_prediction_tokens")
_OUT = ("reasoning_tokens", "audio_tokens", "image_tokens", "text_tokens", *_PREDICTED)


class _ChatCounting(Reading):
    def __init__(self) -> None:
        super().__init__()
        self._usage: Usage | None = None
        self._has_ended = False
        self._is_final = False

    def see_event(self, event: bytes) -> None:
        # Looking for plain bytes first makes an event that tells nothing ten times as cheap. OpenAI's have a usage that
        # is null, where it was asked for.
        told = event.count(b'"usage"')
        if ((told and told != event.count(b'"usage":null')) or b'"error"' in event) and _TELLS.search(event):
            self.attempt(self._see_chunk, event_data(event) or b"")
        elif _DONE in event and event_data(event) == _DONE:
            self._has_ended = True

    def see_answer(self, body: bytes) -> None:
        self.attempt(self._see_body, body)

    def usage(self) -> Usage | Unknown | None:
        return self.wrong or (self._usage if self._has_ended else None)

    def _see_chunk(self, data: bytes) -> None:
        chunk = members(data)
        if value_of(chunk, "error") is not None:
            raise Wrong("an error came in the stream")
        if (usage := usage_in(chunk)) is not None:
            read = read_chat_usage(usage, terms_of(value_of(chunk, "service_tier")))
            self._take(read, is_final=value_of(chunk, "choices") == [])

    def _take(self, usage: Usage, *, is_final: bool) -> None:
        if (before := self._usage) is not None:
            self._check_growth(before, usage)
        self._usage = usage
        self._is_final = self._is_final or is_final
        self._has_ended = self._has_ended or is_final

    def _check_growth(self, before: Usage, usage: Usage) -> None:
        """Counts so far only grow, and after the last they stand."""
        if self._is_final or self._has_ended:
            if usage != before:
                raise Wrong("it was told twice, and differs")
        elif usage.prompt_tokens < before.prompt_tokens or usage.answer_tokens < before.answer_tokens:
            raise Wrong("its counts went back while the answer came")

    def _see_body(self, body: bytes) -> None:
        answer = members(body)
        if (usage := usage_in(answer)) is not None:
            self._usage = self._read_whole(usage, terms_of(value_of(answer, "service_tier")))
            self._has_ended = True

    def _read_whole(self, usage: Mapping[str, Any], terms: str) -> Usage:
        return read_chat_usage(usage, terms)


class _EmbeddingsCounting(_ChatCounting):
    def _read_whole(self, usage: Mapping[str, Any], terms: str) -> Usage:
        return read_chat_usage({"completion_tokens": 0, **usage}, terms)


class _RerankCounting(_ChatCounting):
    def _read_whole(self, usage: Mapping[str, Any], terms: str) -> Usage:
        if usage.get("search_units"):
            raise Wrong("it counts `search_units`, which have no price here")
        return read_chat_usage({"completion_tokens": 0, "prompt_tokens": needed(usage, "total_tokens"), **usage}, terms)


def counting() -> _ChatCounting:
    """Counts a chat completion."""
    return _ChatCounting()


def embeddings_counting() -> _EmbeddingsCounting:
    """Counts embeddings, which have no answer's tokens."""
    return _EmbeddingsCounting()


def rerank_counting() -> _RerankCounting:
    """Counts a rerank: most servers tell no more than `total_tokens`, all of which they read."""
    return _RerankCounting()


def read_chat_usage(fields: Mapping[str, Any], terms: str) -> Usage:
    """Raises Wrong."""
    told = counts_in(fields, _KNOWN)
    prompt, answer = needed(told, "prompt_tokens"), needed(told, "completion_tokens")
    total = told.get("total_tokens")
    if total is not None and total != prompt + answer:
        raise Wrong(f"`total_tokens` is {total}, prompt and answer are {prompt} and {answer}")
    within, made = details(fields, "prompt_tokens_details", _IN), details(fields, "completion_tokens_details", _OUT)
    cache_read = agreed(within.get("cached_tokens"), *[told.get(name) for name in _CACHED])
    missed = told.get("prompt_cache_miss_tokens")
    if missed is not None and missed != prompt - cache_read:
        raise Wrong(f"`prompt_cache_miss_tokens` is {missed}, the prompt {prompt} with {cache_read} of them cached")
    return _split(prompt, cache_read, within, answer, made, terms)


def _split(prompt: int, cache_read: int, within: Counts, answer: int, made: Counts, terms: str) -> Usage:
    cache_write = within.get("cache_write_tokens", 0)
    picture_in, audio_in = within.get("image_tokens", 0), within.get("audio_tokens", 0)
    if text := within.get("text_tokens"):
        rest(prompt, "prompt_tokens", text=text, picture=picture_in, audio=audio_in)
    reasoning = made.get("reasoning_tokens", 0)
    picture_out, audio_out = made.get("image_tokens", 0), made.get("audio_tokens", 0)
    for name in ("text_tokens", *_PREDICTED):
        if part := made.get(name):
            rest(answer, "completion_tokens", **{name: part})
    return Usage(
        prompt=rest(
            prompt, "prompt_tokens", cached=cache_read, written=cache_write, picture=picture_in, audio=audio_in
        ),
        cache_read=cache_read,
        cache_write=cache_write,
        picture_in=picture_in,
        audio_in=audio_in,
        answer=rest(answer, "completion_tokens", reasoning=reasoning, picture=picture_out, audio=audio_out),
        reasoning=reasoning,
        picture_out=picture_out,
        audio_out=audio_out,
        is_mixed=bool((cache_read or cache_write) and (picture_in or audio_in)),
        terms=terms,
    )
