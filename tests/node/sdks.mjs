// The TypeScript SDKs against a running Farebox: prints a line for each check, exits 1 at the first that fails.
import assert from "node:assert/strict";
import { OpenRouter } from "@openrouter/sdk";
import * as errors from "@openrouter/sdk/models/errors";
import OpenAI from "openai";

const { BASE, KEY, POOR_KEY } = process.env;
const hello = [{ role: "user", content: "Hello" }];
const router = new OpenRouter({ serverURL: BASE, apiKey: KEY });
const client = new OpenAI({ baseURL: BASE, apiKey: KEY, maxRetries: 0 });

async function check(name, body) {
  try {
    await body();
  } catch (error) {
    console.error(`FAILED ${name}`, error);
    process.exit(1);
  }
  console.log(`ok ${name}`);
}

async function textOf(chunks) {
  let text = "";
  let cost = null;
  for await (const chunk of chunks) {
    text += chunk.choices[0]?.delta.content ?? "";
    cost = chunk.usage?.cost ?? cost;
  }
  return { text, cost };
}

const send = (chatRequest, sdk = router) => sdk.chat.send({ chatRequest });

await check("openrouter, whole", async () => {
  const answer = await send({ model: "sim/echo", messages: hello });
  assert.equal(answer.choices[0].message.content, "You said: Hello");
  assert.equal(answer.usage.cost, 2.55e-6);
});

for (const fault of [
  "usage=separate", "usage=delta", "usage=merged", "no-final-blank,no-done", "crlf", "split=3", "comments=2",
  "defect=role-empty", "defect=fingerprint-null", "defect=tool-calls-null", "defect=no-finish", "defect=no-index",
  "defect=usage-null", "defect=no-choices",
]) {
  await check(`openrouter, streamed, ${fault}`, async () => {
    const seen = await textOf(await send({ model: `sim/echo:${fault}`, messages: hello, stream: true }));
    assert.deepEqual(seen, { text: "You said: Hello", cost: 2.55e-6 });
  });
}

for (const fault of ["bare-error-at-event=1", "error-at-event=1", "cut-at-event=1"]) {
  await check(`openrouter, streamed, ${fault}`, async () => {
    let last;
    for await (const chunk of await send({ model: `sim/echo:${fault}`, messages: hello, stream: true })) last = chunk;
    assert.ok([402, 502].includes(last.error.code));
  });
}

for (const [type, chatRequest, sdk] of [
  [errors.NotFoundResponseError, { model: "nobody/nothing", messages: hello }, router],
  [errors.BadRequestResponseError, { model: "sim/echo", messages: hello, n: 0 }, router],
  [errors.PaymentRequiredResponseError, { model: "sim/echo", messages: hello }, new OpenRouter({ serverURL: BASE, apiKey: POOR_KEY })],
  [errors.UnauthorizedResponseError, { model: "sim/echo", messages: hello }, new OpenRouter({ serverURL: BASE, apiKey: "no" })],
  [errors.TooManyRequestsResponseError, { model: "sim/echo:status=429", messages: hello }, router],
]) {
  if (chatRequest.n === 0) {
    // The SDK does not know `n`: an empty list of messages is refused as well.
    delete chatRequest.n;
    chatRequest.messages = [];
  }
  await check(`openrouter, ${type.name}`, () => assert.rejects(send(chatRequest, sdk), (error) => error instanceof type));
}

await check("openrouter, models page by page", async () => {
  const ids = [];
  for await (const page of await router.models.list({ limit: 5 })) ids.push(...page.result.data.map((model) => model.id));
  assert.ok(ids.length >= 12);
  assert.equal(new Set(ids).size, ids.length);
});

await check("openrouter, credits and key", async () => {
  assert.equal((await router.credits.getCredits()).data.totalCredits, 5);
  assert.equal((await router.apiKeys.getCurrentKeyMetadata()).data.label, "made at the first start");
});

await check("openai, whole", async () => {
  const { data, response } = await client.chat.completions.create({ model: "sim/echo", messages: hello }).withResponse();
  assert.equal(data.choices[0].message.content, "You said: Hello");
  assert.equal(response.headers.get("x-farebox-fare-events"), "1");
});

await check("openai, streamed", async () => {
  const stream = await client.chat.completions.create({ model: "sim/echo", messages: hello, stream: true });
  assert.deepEqual(await textOf(stream), { text: "You said: Hello", cost: 2.55e-6 });
});

await check("openai, streaming helper", async () => {
  const stream = client.chat.completions.stream({ model: "sim/reasoner", messages: hello });
  assert.equal(await stream.finalContent(), "You said: Hello");
});
