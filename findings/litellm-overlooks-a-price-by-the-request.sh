#!/usr/bin/env bash
# litellm 1.108.7 (PyPI): its price list has `input_cost_per_request` for four of Perplexity's models that search the web (0.005 USD
# a request, beside a price by the token); `completion_cost` is what tells the cost of an answer in USD (its documentation,
# "Completion Token Usage & Cost").
#
# Guessed: an answer of `perplexity/sonar-medium-online` costs 0.005 and its tokens.
# Seen: it costs its tokens alone, 0.00018 of 0.00518 for 1,000 tokens read and 100 written; an entry of one's own, registered
# with `input_cost_per_request`, is read in the same way. Nothing says so. Whoever bills by it, or takes over its list, must add
# that price.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'litellm==1.108.7'

told=$(LITELLM_LOCAL_MODEL_COST_MAP=True "$folder/venv/bin/python" - <<'PY'
import litellm

litellm.suppress_debug_info = True
OWN = {"input_cost_per_request": 0.005, "input_cost_per_token": 0.0, "output_cost_per_token": 1.8e-06}
litellm.register_model({"perplexity/of-ours": {**OWN, "litellm_provider": "perplexity", "mode": "chat"}})
for model in ("perplexity/sonar-medium-online", "perplexity/of-ours"):
    answer = litellm.ModelResponse(
        model=model, usage=litellm.Usage(prompt_tokens=1000, completion_tokens=100, total_tokens=1100)
    )
    listed = litellm.model_cost[model]["input_cost_per_request"]
    print(f"{model}: {listed} a request in the list, costs {litellm.completion_cost(answer):.5f}")
PY
)
echo "$told"
[ "$told" = "perplexity/sonar-medium-online: 0.005 a request in the list, costs 0.00018
perplexity/of-ours: 0.005 a request in the list, costs 0.00018" ] || { echo "this has changed"; exit 1; }
