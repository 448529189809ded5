#!/usr/bin/env bash
# genai-prices 0.2.3 (PyPI, the prices behind Pydantic AI and Logfire): `extract_usage` takes an answer as a provider's API gave it,
# the provider's name and an `api_flavor`, "default" where none is said, and its result tells the price (its README, "extract_usage").
#
# Guessed: a chat completion in OpenAI's format, 400 of its 1,000 tokens read from a cache, is read alike for every provider that
# speaks that format, by default or as "chat".
# Seen: each provider has other flavors. By default xAI's cached tokens are left out in silence, and the answer costs 0.0045 USD
# where it costs 0.0036 as "chat"; OpenRouter's default reads only the Responses format, and raises for a chat completion; Groq has
# no "chat", OpenAI and DeepSeek no "default". Whoever checks a gateway's charges by it must name the flavor for each provider.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'genai-prices==0.2.3'

told=$("$folder/venv/bin/python" - <<'PY'
from genai_prices import extract_usage

USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
    "prompt_tokens_details": {"cached_tokens": 400},
}
MODELS = {
    "x-ai": "grok-4",
    "openrouter": "openai/gpt-4o",
    "groq": "llama-3.3-70b-versatile",
    "openai": "gpt-4o",
    "deepseek": "deepseek-chat",
}
for provider, model in MODELS.items():
    for flavor in ("default", "chat"):
        try:
            found = extract_usage({"model": model, "usage": USAGE}, provider_id=provider, api_flavor=flavor)
            told = f"{found.usage.cache_read_tokens or 0} cached"
            if provider == "x-ai":
                told += f", {found.calc_price().total_price.normalize()} USD"
        except ValueError as error:
            told = str(error).partition(",")[0]
        print(f"{provider}, {flavor}: {told}")
PY
)
echo "$told"
[ "$told" = "x-ai, default: 0 cached, 0.0045 USD
x-ai, chat: 400 cached, 0.0036 USD
openrouter, default: Missing value at \`usage.input_tokens\`
openrouter, chat: 400 cached
groq, default: 400 cached
groq, chat: Unknown api_flavor 'chat'
openai, default: Unknown api_flavor 'default'
openai, chat: 400 cached
deepseek, default: Unknown api_flavor 'default'
deepseek, chat: 400 cached" ] || { echo "this has changed"; exit 1; }
