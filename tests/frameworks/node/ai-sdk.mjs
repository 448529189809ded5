// Vercel's AI SDK with its OpenAI provider (responses and chat) and OpenRouter's, streamed, and a tool.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { embed, generateText, jsonSchema, streamText, tool } from "ai";

const { BASE, KEY } = process.env;
const openai = createOpenAI({ baseURL: BASE, apiKey: KEY });
const openrouter = createOpenRouter({ baseURL: BASE, apiKey: KEY });
const weather = tool({
  description: "What the weather is in a city.",
  inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"] }),
});

for (const [name, model] of [
  ["@ai-sdk/openai, responses", openai.responses("sim/echo")],
  ["@ai-sdk/openai, chat", openai.chat("sim/echo")],
  ["@openrouter/ai-sdk-provider", openrouter.chat("sim/echo")],
]) {
  const result = streamText({ model, prompt: "Hello", maxRetries: 0 });
  let text = "";
  for await (const piece of result.textStream) text += piece;
  assert.equal(text, "You said: Hello");
  assert.equal((await result.usage).outputTokens, 3);
  console.log(`ok ${name}`);
  const called = await generateText({ model, prompt: "Hello", tools: { weather }, maxRetries: 0 });
  assert.deepEqual(called.toolCalls[0].input, { city: "Hello" });
  console.log(`ok ${name}, a tool`);
}

// What breaks after it was ordered is ordered once, and told: the SDK would repeat, twice, before any output.
let orders = 0;
const counted = createOpenAI({ baseURL: BASE, apiKey: KEY, fetch: (...call) => (orders++, fetch(...call)) });
for (const fault of ["error-at-event=0", "error-at-event=2", "bare-error-at-event=2", "cut-at-event=2"]) {
  const errors = [];
  orders = 0;
  const model = counted.responses(`sim/echo:${fault}`);
  await streamText({ model, prompt: "Hello", onError: ({ error }) => errors.push(error) }).consumeStream();
  assert.equal(orders, 1);
  assert.match(errors[0].message, /Simulated|broke off|own account/);
}
console.log("ok orders that break are not repeated");

const { providerMetadata } = await generateText({
  model: openrouter.chat("sim/echo", { usage: { include: true } }),
  prompt: "Hello",
});
assert.equal(providerMetadata.openrouter.usage.cost, 2.55e-6);
assert.equal((await embed({ model: openai.textEmbeddingModel("sim/embedder"), value: "Hello" })).embedding.length, 8);
console.log("ok cost and embeddings");
