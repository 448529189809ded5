// The SDKs on a stream that is silent for a while before its head, and between its events: keep-alives are no part of it.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { OpenRouter } from "@openrouter/sdk";
import { all, BASE, check, HELLO, KEY, ROOT, SAID } from "./check.mjs";

const { MODEL } = process.env;
const openai = new OpenAI({ baseURL: BASE, apiKey: KEY, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: ROOT, authToken: KEY, maxRetries: 0 });
const router = new OpenRouter({ serverURL: BASE, apiKey: KEY });

await Promise.all([
  check("openai, chat", async () =>
    assert.equal(await openai.chat.completions.stream({ model: MODEL, messages: HELLO }).finalContent(), SAID)),
  check("openai, responses", async () =>
    assert.equal((await openai.responses.stream({ model: MODEL, input: "Hello" }).finalResponse()).output_text, SAID)),
  check("anthropic, messages", async () =>
    assert.equal(await anthropic.messages.stream({ model: MODEL, max_tokens: 99, messages: HELLO }).finalText(), SAID)),
  check("openrouter, chat", async () => {
    const chunks = await all(await router.chat.send({ chatRequest: { model: MODEL, messages: HELLO, stream: true } }));
    assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), SAID);
  }),
  check("openrouter, responses", async () => {
    const events = await all(await router.responses.send({ responsesRequest: { model: MODEL, input: "Hello", stream: true } }));
    assert.equal(events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta).join(""), SAID);
  }),
  check("plain fetch, messages", async () => {
    const body = JSON.stringify({ model: MODEL, max_tokens: 99, messages: HELLO, stream: true });
    const answer = await fetch(`${BASE}/messages`, { method: "POST", headers: { "x-api-key": KEY, "content-type": "application/json" }, body });
    const text = await answer.text();
    assert.ok(text.startsWith('event: ping\ndata: {"type": "ping"}\n\n'), text);
    assert.ok(text.split("event: ping").length > 4, text);
  }),
]);
