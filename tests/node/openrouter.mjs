// @openrouter/sdk against a running Farebox: every endpoint that it has.
import assert from "node:assert/strict";
import { OpenRouter } from "@openrouter/sdk";
import * as errors from "@openrouter/sdk/models/errors";
import { all, BASE, check, COST, HELLO, KEY, PARAMETERS, PICTURE, POOR_KEY, rejects, SAID, sleep } from "./check.mjs";

const router = new OpenRouter({ serverURL: BASE, apiKey: KEY });
const poor = new OpenRouter({ serverURL: BASE, apiKey: POOR_KEY });
const stranger = new OpenRouter({ serverURL: BASE, apiKey: "no" });

const send = (chatRequest, sdk = router) => sdk.chat.send({ chatRequest });
const respond = (responsesRequest, sdk = router) => sdk.responses.send({ responsesRequest });

function textOf(chunks) {
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  return { text, cost: chunks.findLast((chunk) => chunk.usage)?.usage.cost };
}

// Chat completions

await check("chat, whole", async () => {
  const answer = await send({ model: "sim/echo", messages: HELLO });
  assert.equal(answer.choices[0].message.content, SAID);
  assert.equal(answer.usage.cost, COST);
});

await check("chat, a picture in and a picture out", async () => {
  const content = [{ type: "text", text: "What is it?" }, { type: "image_url", imageUrl: { url: PICTURE } }];
  assert.equal((await send({ model: "sim/seer", messages: [{ role: "user", content }] })).choices[0].message.content, "You said: What is it?");
  const painted = await send({ model: "sim/painter", messages: HELLO, modalities: ["image", "text"] });
  assert.match(painted.choices[0].message.images[0].imageUrl.url, /^data:image\/png;base64,/);
});

await check("chat, tools, whole and streamed", async () => {
  const tools = [{ type: "function", function: { name: "weather", parameters: PARAMETERS } }];
  const answer = await send({ model: "sim/echo", messages: HELLO, tools });
  assert.deepEqual(JSON.parse(answer.choices[0].message.toolCalls[0].function.arguments), { city: "Hello" });
  const chunks = await all(await send({ model: "sim/echo", messages: HELLO, tools, stream: true }));
  const said = chunks.flatMap((chunk) => chunk.choices[0]?.delta.toolCalls ?? []).map((call) => call.function?.arguments ?? "");
  assert.deepEqual(JSON.parse(said.join("")), { city: "Hello" });
});

for (const fault of [
  "usage=separate", "usage=delta", "usage=merged", "no-final-blank,no-done", "crlf", "split=3", "comments=2",
  "defect=role-empty", "defect=fingerprint-null", "defect=tool-calls-null", "defect=no-finish", "defect=no-index",
  "defect=usage-null", "defect=no-choices",
]) {
  await check(`chat, streamed, ${fault}`, async () => {
    const chunks = await all(await send({ model: `sim/echo:${fault}`, messages: HELLO, stream: true }));
    assert.deepEqual(textOf(chunks), { text: SAID, cost: COST });
  });
}

for (const fault of ["bare-error-at-event=1", "error-at-event=1", "cut-at-event=1"]) {
  await check(`chat, streamed, ${fault}`, async () => {
    const chunks = await all(await send({ model: `sim/echo:${fault}`, messages: HELLO, stream: true }));
    assert.ok([402, 502].includes(chunks.at(-1).error.code));
  });
}

await check("chat, aborted", async () => {
  const controller = new AbortController();
  const request = { chatRequest: { model: "sim/echo:tokens=500,token-ms=10", messages: HELLO, stream: true } };
  const stream = await router.chat.send(request, { fetchOptions: { signal: controller.signal } });
  await assert.rejects(async () => {
    for await (const _ of stream) controller.abort();
  });
});

// Responses

await check("responses, whole", async () => {
  const answer = await respond({ model: "sim/echo", input: "Hello" });
  assert.equal(answer.output[0].content[0].text, SAID);
  assert.equal(answer.usage.cost, COST);
  assert.match(answer.id, /^gen-/);
});

await check("responses, tools and pictures", async () => {
  const tools = [{ type: "function", name: "weather", parameters: PARAMETERS }];
  const called = await respond({ model: "sim/echo", input: "Hello", tools });
  assert.deepEqual(JSON.parse(called.output[0].arguments), { city: "Hello" });
  const content = [{ type: "input_text", text: "What is it?" }, { type: "input_image", detail: "auto", imageUrl: PICTURE }];
  const seen = await respond({ model: "sim/seer", input: [{ role: "user", content }] });
  assert.equal(seen.output[0].content[0].text, "You said: What is it?");
  const painted = await respond({ model: "sim/painter", input: "Hello", modalities: ["image", "text"] });
  assert.equal(painted.output[0].type, "image_generation_call");
});

for (const fault of [
  "crlf", "split=3", "comments=2", "no-final-blank,no-done", "defect=no-sequence", "defect=no-nulls",
  "defect=no-logprobs", "defect=chat-costs", "defect=debug", "defect=empty-data",
]) {
  await check(`responses, streamed, ${fault}`, async () => {
    const events = await all(await respond({ model: `sim/echo:${fault}`, input: "Hello", stream: true }));
    assert.deepEqual(events.filter((event) => event.isUnknown), []);
    const text = events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
    assert.equal(text.join(""), SAID);
    const last = events.at(-1);
    assert.equal(last.type, "response.completed");
    assert.equal(last.response.usage.cost, COST);
  });
}

await check("responses, streamed call without its name", async () => {
  const tools = [{ type: "function", name: "weather", parameters: PARAMETERS }];
  const request = { model: "sim/echo:defect=no-name", input: "Hello", tools, stream: true };
  const done = (await all(await respond(request))).find((event) => event.type === "response.function_call_arguments.done");
  assert.equal(done.name, "weather");
});

for (const fault of ["bare-error-at-event=3", "error-at-event=3", "cut-at-event=3"]) {
  await check(`responses, streamed, ${fault}`, async () => {
    const last = (await all(await respond({ model: `sim/echo:${fault}`, input: "Hello", stream: true }))).at(-1);
    assert.equal(last.type, "response.failed");
    assert.match(last.response.error.message, /imulated|broke off|own account/);
  });
}

// Embeddings

await check("embeddings, as numbers and packed", async () => {
  const embed = (requestBody) => router.embeddings.generate({ requestBody: { model: "sim/embedder", ...requestBody } });
  const many = await embed({ input: ["Hello", "there"] });
  assert.deepEqual(many.data.map((each) => each.embedding.length), [8, 8]);
  assert.equal(many.usage.cost, 8e-8);
  const packed = await embed({ input: "Hello", encodingFormat: "base64" });
  const bytes = Buffer.from(packed.data[0].embedding, "base64");
  assert.deepEqual(new Float32Array(bytes.buffer, bytes.byteOffset, 8)[0], many.data[0].embedding[0]);
  for (const fault of ["usage=missing", "cost=is-null"]) {
    const answer = await embed({ model: `sim/embedder:${fault}`, input: "Hello" });
    assert.equal(answer.usage?.cost, undefined);
  }
});

// Errors

for (const [type, request, sdk] of [
  [errors.NotFoundResponseError, { model: "nobody/nothing" }],
  [errors.BadRequestResponseError, { model: "sim/echo:status=400" }],
  [errors.PaymentRequiredResponseError, { model: "sim/echo" }, poor],
  [errors.UnauthorizedResponseError, { model: "sim/echo" }, stranger],
  [errors.ForbiddenResponseError, { model: "sim/echo:flagged" }],
  [errors.RequestTimeoutResponseError, { model: "sim/echo:status=408" }],
  [errors.PayloadTooLargeResponseError, { model: "sim/echo:status=413" }],
  [errors.UnprocessableEntityResponseError, { model: "sim/echo:status=422" }],
  [errors.TooManyRequestsResponseError, { model: "sim/echo:status=429" }],
]) {
  await check(`chat, ${type.name}`, () => rejects(send({ messages: HELLO, ...request }, sdk), type));
  await check(`responses, ${type.name}`, () => rejects(respond({ input: "Hello", ...request }, sdk), type));
}

const once = { retries: { strategy: "none" } };
for (const [type, status] of [
  [errors.InternalServerResponseError, 500],
  [errors.BadGatewayResponseError, 502],
  [errors.ServiceUnavailableResponseError, 503],
  [errors.EdgeNetworkTimeoutResponseError, 524],
  [errors.ProviderOverloadedResponseError, 529],
]) {
  await check(`chat, responses and embeddings, ${type.name}`, async () => {
    const model = `sim/echo:status=${status}`;
    await rejects(router.chat.send({ chatRequest: { model, messages: HELLO } }, once), type);
    await rejects(router.responses.send({ responsesRequest: { model, input: "Hello" } }, once), type);
    const requestBody = { model: `sim/embedder:status=${status}`, input: "Hello" };
    await rejects(router.embeddings.generate({ requestBody }, once), type);
  });
}

await check("embeddings, errors", async () => {
  const embed = (requestBody, sdk = router) => sdk.embeddings.generate({ requestBody });
  await rejects(embed({ model: "sim/embedder", input: [] }), errors.BadRequestResponseError);
  await rejects(embed({ model: "nobody/nothing", input: "Hello" }), errors.NotFoundResponseError);
  await rejects(embed({ model: "sim/embedder", input: "Hello" }, stranger), errors.UnauthorizedResponseError);
  await rejects(embed({ model: "sim/embedder", input: "Hello" }, poor), errors.PaymentRequiredResponseError);
});

// Lists and records

for (const [name, list] of [
  ["models", (request) => router.models.list(request)],
  ["models of the caller", (request) => router.models.listForUser({ bearer: KEY }, request)],
  ["embedding models", (request) => router.embeddings.listModels(request)],
]) {
  await check(`${name}, page by page`, async () => {
    const pages = await all(await list({ limit: 5 }));
    const ids = pages.flatMap((page) => page.result.data).map((model) => model.id);
    assert.equal(new Set(ids).size, ids.length);
    assert.equal(ids.length, pages[0].result.totalCount);
  });
}

await check("models, filtered and counted", async () => {
  const { result } = await router.models.list({ q: "pro", outputModalities: "text" });
  assert.deepEqual(result.data.map((model) => model.id), ["sim/echo-pro"]);
  assert.equal((await router.models.count({ outputModalities: "embeddings" })).data.count, 1);
});

await check("one model", async () => {
  for (const slug of ["echo", "echo:free", "embedder"]) {
    assert.equal((await router.models.get({ author: "sim", slug })).data.id, `sim/${slug}`);
  }
  await rejects(router.models.get({ author: "no", slug: "body" }), errors.NotFoundResponseError);
});

await check("endpoints, zdr, providers", async () => {
  const served = await router.endpoints.list({ author: "sim", slug: "echo:free" });
  assert.equal(served.data.endpoints[0].modelId, "sim/echo:free");
  assert.ok((await router.endpoints.listZdrEndpoints()).data.length > 0);
  assert.ok((await router.providers.list()).data.length > 0);
  await rejects(router.endpoints.list({ author: "nobody", slug: "nothing" }), errors.NotFoundResponseError);
});

await check("generation, at once and when the upstream has written it down", async () => {
  const { id } = await send({ model: "sim/echo", messages: HELLO });
  const atOnce = (await router.generations.getGeneration({ id })).data;
  assert.deepEqual([atOnce.totalCost, atOnce.tokensCompletion, atOnce.providerName], [COST, 3, null]);
  await sleep(400);
  const { data } = await router.generations.getGeneration({ id });
  assert.equal(data.totalCost, COST);
  assert.equal(data.tokensCompletion, 3);
  assert.equal(data.providerName, "FakeProvider");
  await rejects(poor.generations.getGeneration({ id }), errors.NotFoundResponseError);
});

await check("credits and key", async () => {
  assert.equal((await router.credits.getCredits()).data.totalCredits, 5);
  assert.equal((await router.apiKeys.getCurrentKeyMetadata()).data.label, "made at the first start");
});
