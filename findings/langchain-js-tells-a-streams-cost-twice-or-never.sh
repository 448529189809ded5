#!/usr/bin/env bash
# @langchain/openrouter 0.4.11 and @langchain/openai 1.6.0 (npm), each pointed at OpenRouter's API: the last chunk of a stream
# tells the usage and, in `usage.cost`, what it cost. It comes in two shapes: with an empty list of choices (OpenRouter's and
# OpenAI's documentation, `stream_options.include_usage`), or, as OpenRouter often sends it, beside a choice with an empty delta.
#
# Guessed: the message that the chunks add up to tells the usage and the cost once, from either class, in either shape.
# Seen: OpenRouter's own class looks only at chunks with a choice: with the documented shape it tells no tokens and no cost,
# though its `streamUsage` is on. OpenAI's class adds the usage of a chunk with a choice to the same usage again
# (reported as langchain-ai/langchainjs #11054): `response_metadata.usage` tells twice the cost and the tokens, while
# `usage_metadata` is right. Who adds up costs behind LangChain takes them from the gateway's own records.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund @langchain/openrouter@0.4.11 @langchain/openai@1.6.0 @langchain/core@1.4.0 >/dev/null

cat > shows.mjs <<'JS'
import { createServer } from "node:http";
import { ChatOpenAI } from "@langchain/openai";
import { ChatOpenRouter } from "@langchain/openrouter";

const usage = { prompt_tokens: 1000, completion_tokens: 100, total_tokens: 1100, cost: 0.0012 };
const choice = (content, finish_reason = null) => ({ index: 0, delta: { role: "assistant", content }, finish_reason });
const head = { id: "gen-1", object: "chat.completion.chunk", created: 1, model: "a/b" };
const lastChoices = { "no choice": [], "a choice": [choice("")] };

const server = createServer(async (request, response) => {
  let body = "";
  for await (const piece of request) body += piece;
  const chunks = [
    { ...head, choices: [choice("Hello")] },
    { ...head, choices: [choice("", "stop")] },
    { ...head, choices: lastChoices[JSON.parse(body).model], usage },
  ];
  response.writeHead(200, { "content-type": "text/event-stream" });
  for (const chunk of chunks) response.write(`data: ${JSON.stringify(chunk)}\n\n`);
  response.end("data: [DONE]\n\n");
});
await new Promise((listens) => server.listen(0, "127.0.0.1", listens));
const baseURL = `http://127.0.0.1:${server.address().port}/api/v1`;

for (const model of Object.keys(lastChoices)) {
  const classes = [
    new ChatOpenRouter({ model, apiKey: "key", baseURL }),
    new ChatOpenAI({ model, apiKey: "key", configuration: { baseURL } }),
  ];
  for (const chat of classes) {
    let message;
    for await (const chunk of await chat.stream("Hello")) message = message ? message.concat(chunk) : chunk;
    const { cost, total_tokens } = message.response_metadata.usage;
    const read = message.usage_metadata?.total_tokens;
    console.log(`usage beside ${model}, ${chat.constructor.name}: cost ${cost}, tokens ${total_tokens} and ${read}`);
  }
}
server.close();
JS
told=$(node shows.mjs)
echo "$told"
[ "$told" = "usage beside no choice, ChatOpenRouter: cost undefined, tokens undefined and undefined
usage beside no choice, ChatOpenAI: cost 0.0012, tokens 1100 and 1100
usage beside a choice, ChatOpenRouter: cost 0.0012, tokens 1100 and 1100
usage beside a choice, ChatOpenAI: cost 0.0024, tokens 2200 and 1100" ] || { echo "this has changed"; exit 1; }
