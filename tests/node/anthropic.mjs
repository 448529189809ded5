// @anthropic-ai/sdk against a running Farebox: messages, whole and streamed, and their helpers.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { all, check, COST, HELLO, KEY, PARAMETERS, PICTURE, POOR_KEY, rejects, ROOT, SAID } from "./check.mjs";

const clientOf = (options) => new Anthropic({ baseURL: ROOT, maxRetries: 0, ...options });
const client = clientOf({ authToken: KEY });
const ask = (request, sdk = client) => sdk.messages.create({ model: "sim/echo", max_tokens: 100, messages: HELLO, ...request });
const tools = [{ name: "weather", input_schema: PARAMETERS }];

await check("whole", async () => {
  const { data, response } = await ask({ system: "Be brief." }).withResponse();
  assert.equal(data.content[0].text, SAID);
  assert.match(data.id, /^gen-/);
  assert.equal(response.headers.get("x-farebox-fare-events"), "1");
});

await check("by x-api-key", async () => assert.equal((await ask({}, clientOf({ apiKey: KEY }))).content[0].text, SAID));

for (const fault of [
  "", "defect=data-only", "defect=named-done", "defect=no-start-usage", "defect=empty-data", "comments=2", "crlf", "split=3",
  "no-done,no-final-blank",
]) {
  await check(`streamed, ${fault}`, async () => {
    const events = await all(await ask({ model: `sim/echo:${fault}`, stream: true }));
    const text = events.map((event) => event.delta?.text ?? "").join("");
    assert.equal(text, SAID);
    assert.equal(events.find((event) => event.type === "message_delta").usage.cost, COST);
  });
  await check(`streaming helper, ${fault}`, async () => {
    const message = await client.messages.stream({ model: `sim/reasoner:${fault}`, max_tokens: 100, messages: HELLO }).finalMessage();
    assert.deepEqual(message.content.map((block) => block.type), ["thinking", "text"]);
    assert.equal(message.content[1].text, SAID);
    assert.equal(message.usage.output_tokens, 14);
  });
}

await check("streaming helper, a stream without usage", async () => {
  const message = await client.messages.stream({ model: "sim/echo:usage=missing", max_tokens: 100, messages: HELLO }).finalMessage();
  assert.equal(message.content[0].text, SAID);
});

await check("tools, whole and streamed", async () => {
  const [call] = (await ask({ tools })).content;
  assert.deepEqual([call.type, call.input], ["tool_use", { city: "Hello" }]);
  const stream = client.messages.stream({ model: "sim/echo", max_tokens: 100, messages: HELLO, tools });
  assert.deepEqual((await stream.finalMessage()).content[0].input, { city: "Hello" });
});

await check("pictures", async () => {
  const source = { type: "base64", media_type: "image/png", data: PICTURE.split(",")[1] };
  const content = [{ type: "image", source }, { type: "text", text: "What is it?" }];
  assert.equal((await ask({ model: "sim/seer", messages: [{ role: "user", content }] })).content[0].text, "You said: What is it?");
});

for (const fault of ["error-at-event=2", "bare-error-at-event=2", "cut-at-event=2"]) {
  await check(`streamed, ${fault}`, async () =>
    rejects(all(await ask({ model: `sim/echo:${fault}`, stream: true })), Anthropic.APIError));
}

await check("aborted", async () => {
  const stream = await ask({ model: "sim/echo:tokens=500,token-ms=10", stream: true });
  let events = 0;
  for await (const _ of stream) if (++events === 3) stream.controller.abort();
  assert.ok(events < 100);
});

for (const [type, status] of [
  [Anthropic.BadRequestError, 400], [Anthropic.PermissionDeniedError, 403], [Anthropic.NotFoundError, 404],
  [Anthropic.UnprocessableEntityError, 422], [Anthropic.RateLimitError, 429], [Anthropic.InternalServerError, 500],
  [Anthropic.InternalServerError, 503],
]) {
  // A 403 of the operator's own account is no caller's: this one is about what was said.
  const fault = status === 403 ? "flagged" : `status=${status}`;
  await check(`${status} is ${type.name}`, () => rejects(ask({ model: `sim/echo:${fault}` }), type));
}

await check("Farebox's own errors have Anthropic's types", async () => {
  for (const [type, request, sdk] of [
    ["invalid_request_error", { messages: [] }],
    ["not_found_error", { model: "nobody/nothing" }],
    ["authentication_error", {}, clientOf({ authToken: "sk-fb-nobody" })],
    ["billing_error", {}, clientOf({ authToken: POOR_KEY })],
  ]) {
    await assert.rejects(ask(request, sdk), (error) => error.type === type && error.error.type === "error");
  }
});

await check("models and fallbacks exclude each other", () =>
  rejects(ask({ models: ["sim/tiny"], fallbacks: [{ model: "sim/tiny" }] }), Anthropic.BadRequestError));

await check("models, page by page and one by one", async () => {
  const every = (await all(client.models.list())).map((model) => model.id);
  assert.ok(every.length > 10);
  assert.deepEqual((await all(client.models.list({ limit: 5 }))).map((model) => model.id), every);
  assert.deepEqual((await all(client.models.list({ limit: 5, before_id: every[3] }))).map((model) => model.id), every.slice(0, 3));
  for (const name of ["sim/echo", "sim/echo:free"]) {
    const model = await client.models.retrieve(name);
    assert.deepEqual([model.id, model.type, model.lifecycle], [name, "model", "active"]);
  }
  await assert.rejects(client.models.retrieve("no/body"), (error) => error instanceof Anthropic.NotFoundError && error.type === "not_found_error");
});
