// openai (Node) against a running Farebox: chat, responses, embeddings, models; the helpers, which are the strict ones.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { all, BASE, check, COST, HELLO, KEY, PARAMETERS, PICTURE, POOR_KEY, rejects, SAID } from "./check.mjs";

const clientOf = (apiKey) => new OpenAI({ baseURL: BASE, apiKey, maxRetries: 0 });
const client = clientOf(KEY);
const chat = (request) => client.chat.completions.create({ model: "sim/echo", messages: HELLO, ...request });
const respond = (request) => client.responses.create({ model: "sim/echo", input: "Hello", ...request });

// Chat completions

await check("chat, whole", async () => {
  const { data, response } = await chat().withResponse();
  assert.equal(data.choices[0].message.content, SAID);
  assert.equal(response.headers.get("x-farebox-fare-events"), "1");
  assert.equal(response.headers.get("x-generation-id"), data.id);
});

await check("chat, streamed", async () => {
  const chunks = await all(await chat({ stream: true }));
  assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), SAID);
  assert.equal(chunks.findLast((chunk) => chunk.usage).usage.cost, COST);
});

await check("chat, streaming helper, with tools", async () => {
  const stream = client.chat.completions.stream({ model: "sim/reasoner", messages: HELLO });
  assert.equal(await stream.finalContent(), SAID);
  const tools = [{ type: "function", function: { name: "weather", parameters: PARAMETERS } }];
  const called = client.chat.completions.stream({ model: "sim/echo", messages: HELLO, tools });
  const [call] = (await called.finalChatCompletion()).choices[0].message.tool_calls;
  assert.deepEqual(JSON.parse(call.function.arguments), { city: "Hello" });
});

await check("chat, tools run by the helper", async () => {
  const weather = { type: "function", function: { name: "weather", parameters: PARAMETERS, parse: JSON.parse, function: ({ city }) => `rain in ${city}` } };
  const runner = client.chat.completions.runTools({ model: "sim/echo", messages: HELLO, tools: [weather], stream: true });
  assert.equal(await runner.finalContent(), SAID);
});

await check("chat, pictures", async () => {
  const content = [{ type: "text", text: "What is it?" }, { type: "image_url", image_url: { url: PICTURE } }];
  const seen = await chat({ model: "sim/seer", messages: [{ role: "user", content }] });
  assert.equal(seen.choices[0].message.content, "You said: What is it?");
  const painted = await chat({ model: "sim/painter", modalities: ["image", "text"] });
  assert.match(painted.choices[0].message.images[0].image_url.url, /^data:image\/png;base64,/);
});

await check("chat, aborted", async () => {
  const stream = await chat({ model: "sim/echo:tokens=500,token-ms=10", stream: true });
  let chunks = 0;
  for await (const _ of stream) if (++chunks === 3) stream.controller.abort();
  assert.ok(chunks < 100);
});

for (const fault of ["error-at-event=1", "bare-error-at-event=1", "cut-at-event=1"]) {
  await check(`chat, streamed, ${fault}`, async () =>
    rejects(all(await chat({ model: `sim/echo:${fault}`, stream: true })), OpenAI.APIError));
}

// Responses

await check("responses, whole", async () => {
  const answer = await respond();
  assert.equal(answer.output_text, SAID);
  assert.equal(answer.usage.cost, COST);
});

for (const fault of ["", "defect=debug", "defect=fusion", "defect=no-sequence", "defect=no-nulls", "defect=no-logprobs", "comments=2", "defect=retry"]) {
  await check(`responses, streaming helper, ${fault}`, async () => {
    const stream = client.responses.stream({ model: `sim/reasoner:${fault}`, input: "Hello" });
    let text = "";
    stream.on("response.output_text.delta", (event) => (text += event.delta));
    const final = await stream.finalResponse();
    assert.equal(final.output_text, SAID);
    assert.equal(text, SAID);
    assert.ok(final.usage.cost > 0);
  });
}

await check("responses, streaming helper, tools, pictures in and out", async () => {
  const tools = [{ type: "function", name: "weather", parameters: PARAMETERS, strict: false }];
  const called = await client.responses.stream({ model: "sim/echo", input: "Hello", tools }).finalResponse();
  assert.deepEqual(JSON.parse(called.output[0].arguments), { city: "Hello" });
  const content = [{ type: "input_text", text: "What is it?" }, { type: "input_image", image_url: PICTURE, detail: "auto" }];
  assert.equal((await respond({ model: "sim/seer", input: [{ role: "user", content }] })).output_text, "You said: What is it?");
  const painted = await client.responses.stream({ model: "sim/painter", input: "Hello", modalities: ["image", "text"] }).finalResponse();
  assert.equal(painted.output[0].type, "image_generation_call");
});

for (const fault of ["bare-error-at-event=3", "error-at-event=3", "cut-at-event=3"]) {
  await check(`responses, streamed, ${fault}`, async () => {
    const broke = (error) => error instanceof OpenAI.APIError && /Simulated|broke off|own account/.test(error.message);
    const respondStreamed = async () => all(await respond({ model: `sim/echo:${fault}`, stream: true }));
    await assert.rejects(respondStreamed(), broke);
    await assert.rejects(client.responses.stream({ model: `sim/echo:${fault}`, input: "Hello" }).finalResponse(), broke);
  });
}

// Embeddings and lists

await check("embeddings", async () => {
  const [packed] = (await client.embeddings.create({ model: "sim/embedder", input: "Hello" })).data;
  const [plain] = (await client.embeddings.create({ model: "sim/embedder", input: "Hello", encoding_format: "float" })).data;
  assert.deepEqual(packed.embedding, plain.embedding);
  assert.equal(plain.embedding.length, 8);
});

await check("models", async () => {
  const ids = (await all(client.models.list())).map((model) => model.id);
  assert.ok(ids.includes("sim/echo"));
  for (const name of ["sim/echo", "sim/echo:free"]) {
    const model = await client.models.retrieve(name);
    assert.deepEqual([model.id, model.object, model.owned_by, typeof model.created], [name, "model", "sim", "number"]);
  }
  await rejects(client.models.retrieve("no/body"), OpenAI.NotFoundError);
});

// Errors

for (const [type, status] of [
  [OpenAI.BadRequestError, 400], [OpenAI.PermissionDeniedError, 403], [OpenAI.NotFoundError, 404],
  [OpenAI.UnprocessableEntityError, 422], [OpenAI.RateLimitError, 429], [OpenAI.InternalServerError, 500],
  [OpenAI.InternalServerError, 502], [OpenAI.InternalServerError, 503],
]) {
  // A 403 of the operator's own account is no caller's: this one is about what was said.
  const fault = status === 403 ? "flagged" : `status=${status}`;
  await check(`${status} is ${type.name}, in every format`, async () => {
    await rejects(chat({ model: `sim/echo:${fault}` }), type);
    await rejects(respond({ model: `sim/echo:${fault}` }), type);
    await rejects(client.embeddings.create({ model: `sim/embedder:${fault}`, input: "Hello" }), type);
  });
}

await check("a stranger, and somebody without money", async () => {
  await rejects(clientOf("sk-fb-nobody").models.list(), OpenAI.AuthenticationError);
  await rejects(clientOf("sk-fb-nobody").responses.create({ model: "sim/echo", input: "Hello" }), OpenAI.AuthenticationError);
  await assert.rejects(clientOf(POOR_KEY).responses.create({ model: "sim/echo", input: "Hello" }), { status: 402 });
});

await check("responses, kept and continued", async () => {
  const kept = await respond({ store: true });
  const next = await respond({ previous_response_id: kept.id });
  assert.equal(next.previous_response_id, kept.id);
  assert.equal((await client.responses.retrieve(next.id)).output_text, next.output_text);
  await client.responses.delete(kept.id);
  await rejects(client.responses.retrieve(kept.id), OpenAI.NotFoundError);
  await rejects(respond({ previous_response_id: kept.id }), OpenAI.NotFoundError);
});
