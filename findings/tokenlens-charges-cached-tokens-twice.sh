#!/usr/bin/env bash
# tokenlens 1.3.1 (npm), which tells what an answer cost by the prices of models.dev: it takes the usage of any provider and of
# Vercel's AI SDK, and a model as `openai:gpt-4o` or `openai/gpt-4o` (its README, "Quick Start" and "Picking Model Metadata").
# In OpenAI's and OpenRouter's usage, and in the AI SDK's, the tokens read from a cache are part of the input.
#
# Guessed: 1,000 tokens read and 100 written by gpt-4o cost 0.0035 USD, and 0.003 where 400 of them came from the cache, however
# the model is written.
# Seen: with 400 from the cache they cost 0.004: these are charged in full and then once more at the cache's price, so the more
# is cached, the dearer the answer. And `openai/gpt-4o`, as OpenRouter names it, costs 0, as does `openrouter:openai/gpt-4o`: the
# first provider that lists that name is github-models, which is free; so it is with gpt-4o-mini, gpt-4.1-mini and o4-mini,
# while gpt-5 has its price. A page that shows costs by it shows others than a gateway charges, which the answer's own
# `usage.cost` tells.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund tokenlens@1.3.1 >/dev/null

cat > shows.mjs <<'JS'
import { getTokenCosts } from "tokenlens";

const plain = { prompt_tokens: 1000, completion_tokens: 100, total_tokens: 1100 };
const cached = { ...plain, prompt_tokens_details: { cached_tokens: 400 } };
const ofTheSdk = { inputTokens: 1000, outputTokens: 100, totalTokens: 1100, cachedInputTokens: 400 };
const cost = (modelId, usage) => getTokenCosts({ modelId, usage }).totalUSD.toFixed(5);

console.log("openai:gpt-4o, nothing cached:", cost("openai:gpt-4o", plain));
console.log("openai:gpt-4o, 400 cached:", cost("openai:gpt-4o", cached), cost("openai:gpt-4o", ofTheSdk));
for (const model of ["openai/gpt-4o", "openrouter:openai/gpt-4o", "openai/gpt-4o-mini", "openai/gpt-5"])
  console.log(`${model}, nothing cached:`, cost(model, plain));
JS
told=$(node shows.mjs)
echo "$told"
[ "$told" = "openai:gpt-4o, nothing cached: 0.00350
openai:gpt-4o, 400 cached: 0.00400 0.00400
openai/gpt-4o, nothing cached: 0.00000
openrouter:openai/gpt-4o, nothing cached: 0.00000
openai/gpt-4o-mini, nothing cached: 0.00000
openai/gpt-5, nothing cached: 0.00225" ] || { echo "this has changed"; exit 1; }
