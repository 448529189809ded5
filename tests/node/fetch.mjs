// Plain fetch against a running Farebox: all endpoints under both bases, and what a client without an SDK sees.
import assert from "node:assert/strict";
import { BASE, check, HELLO, KEY, SAID } from "./check.mjs";

const authorization = `Bearer ${KEY}`;
const get = (path, base = BASE) => fetch(base + path, { headers: { authorization } });
const post = (path, body, base = BASE, headers = {}) =>
  fetch(base + path, { method: "POST", headers: { authorization, "content-type": "application/json", ...headers }, body: JSON.stringify(body) });

const ORDERS = {
  "/chat/completions": { model: "sim/echo", messages: HELLO },
  "/messages": { model: "sim/echo", max_tokens: 100, messages: HELLO },
  "/responses": { model: "sim/echo", input: "Hello" },
  "/embeddings": { model: "sim/embedder", input: "Hello" },
};
const UNITS = {
  "/rerank": { model: "sim/reranker", query: "Hello", documents: ["Hello", "there"] },
  "/images": { model: "sim/illustrator", prompt: "Hello" },
  "/images/generations": { model: "sim/poster", prompt: "Hello" },
  "/audio/speech": { model: "sim/voice", input: "Hello" },
  "/audio/transcriptions": { model: "sim/scribe", input_audio: { data: "UklGRg==", format: "wav" } },
};
const JOB = { model: "sim/filmer", prompt: "Hello", duration: 2 };
const LISTS = ["/models", "/models/user", "/embeddings/models", "/providers", "/endpoints/zdr"];

for (const base of [BASE, BASE.replace("/api/v1", "/v1")]) {
  for (const [path, body] of Object.entries(ORDERS)) {
    await check(`POST ${base}${path}`, async () => {
      const answer = await post(path, body, base);
      assert.equal(answer.status, 200);
      assert.match(answer.headers.get("x-generation-id"), /^gen-/);
      assert.equal(answer.headers.get("x-farebox-fare-usd"), "0.00001");
      assert.ok((await answer.json()).usage.cost > 0);
    });
    if (path === "/embeddings") continue;
    await check(`POST ${base}${path}, streamed`, async () => {
      const answer = await post(path, { ...body, stream: true }, base);
      assert.equal(answer.headers.get("content-type"), "text/event-stream");
      const text = await answer.text();
      const said = [...text.matchAll(/"(?:content|text|delta)":"((?:You |said: |Hello)+)"/g)].map((found) => found[1]);
      assert.ok(said.join("").startsWith(SAID));
      assert.match(text, /"cost":2\.55e-06/);
    });
  }
  for (const [path, body] of Object.entries(UNITS)) {
    await check(`POST ${base}${path}`, async () => {
      const answer = await post(path, body, base);
      assert.equal(answer.status, 200);
      assert.match(answer.headers.get("x-generation-id"), /^gen-/);
      if (path === "/audio/speech") assert.ok((await answer.arrayBuffer()).byteLength > 0);
      else assert.ok((await answer.json()).usage.cost > 0);
    });
  }
  await check(`POST ${base}/videos`, async () => {
    const begun = await post("/videos", JOB, base);
    assert.equal(begun.status, 202);
    const { id, polling_url } = await begun.json();
    assert.equal(polling_url, `${BASE}/videos/${id}`);
    assert.equal((await get(`/videos/${id}`, base)).status, 200);
  });
  await check(`POST ${base}/audio/transcriptions, a form`, async () => {
    const form = new FormData();
    form.append("model", "sim/scribe");
    form.append("file", new Blob([new Uint8Array(16000)]), "a.mp3");
    const answer = await fetch(`${base}/audio/transcriptions`, { method: "POST", headers: { authorization }, body: form });
    assert.equal((await answer.json()).text, "You said something for 1.0 seconds.");
  });
  for (const path of LISTS) {
    await check(`GET ${base}${path}`, async () => assert.ok((await (await get(path, base)).json()).data.length > 0));
  }
  await check(`GET ${base}/models/count, endpoints, generation`, async () => {
    assert.ok((await (await get("/models/count", base)).json()).data.count > 5);
    assert.equal((await (await get("/models/sim/echo/endpoints", base)).json()).data.id, "sim/echo");
    const id = (await post("/chat/completions", ORDERS["/chat/completions"], base)).headers.get("x-generation-id");
    const { data } = await (await get(`/generation?id=${id}`, base)).json();
    assert.equal(data.farebox_fare_usd, 0.00001);
  });
}

for (const [name, credentials, status] of [
  ["a dummy beside the key", { "x-api-key": "dummy", authorization }, 200],
  ["the key beside a dummy", { "x-api-key": KEY, authorization: "Bearer dummy" }, 200],
  ["x-api-key alone", { "x-api-key": ` ${KEY} ` }, 200],
  ["bearer in small letters, spaces, an empty cookie", { authorization: `  bearer   ${KEY}  `, cookie: "" }, 200],
  ["two dummies", { "x-api-key": "dummy", authorization: "Bearer dummy" }, 401],
  ["no scheme", { authorization: KEY }, 401],
  ["nothing", {}, 401],
]) {
  await check(`credentials: ${name}`, async () => {
    const headers = { "content-type": "application/json", ...credentials };
    const answer = await fetch(`${BASE}/messages`, { method: "POST", headers, body: JSON.stringify(ORDERS["/messages"]) });
    assert.equal(answer.status, status);
  });
}

await check("credentials: never in the query", async () => {
  assert.equal((await fetch(`${BASE}/models/user?token=${KEY}`)).status, 401);
});

await check("a fetch that is aborted", async () => {
  const controller = new AbortController();
  const body = JSON.stringify({ ...ORDERS["/responses"], model: "sim/echo:tokens=500,token-ms=10", stream: true });
  const headers = { authorization, "content-type": "application/json" };
  const answer = await fetch(`${BASE}/responses`, { method: "POST", headers, body, signal: controller.signal });
  const reader = answer.body.getReader();
  await reader.read();
  controller.abort();
  await assert.rejects(async () => {
    while (!(await reader.read()).done);
  });
});
