// Calls those methods of @openrouter/sdk whose names are in SERVED, each with what it needs at least, and prints what
// became of each as JSON: "ok" where its answer was parsed.
import { OpenRouter } from "@openrouter/sdk";
import { all, BASE, HELLO, KEY, sleep } from "./check.mjs";

const { MANAGER, SERVED } = process.env;
const router = new OpenRouter({ serverURL: BASE, apiKey: KEY, retryConfig: { strategy: "none" } });
const manager = new OpenRouter({ serverURL: BASE, apiKey: MANAGER, retryConfig: { strategy: "none" } });

/** A second of silence, as WAV. */
function silence() {
  const bytes = Buffer.alloc(44 + 16000);
  bytes.write("RIFF", 0); bytes.writeUInt32LE(36 + 16000, 4); bytes.write("WAVEfmt ", 8);
  bytes.writeUInt32LE(16, 16); bytes.writeUInt16LE(1, 20); bytes.writeUInt16LE(1, 22);
  bytes.writeUInt32LE(8000, 24); bytes.writeUInt32LE(16000, 28); bytes.writeUInt16LE(2, 32); bytes.writeUInt16LE(16, 34);
  bytes.write("data", 36); bytes.writeUInt32LE(16000, 40);
  return bytes;
}

const chatRequest = { model: "sim/echo", messages: HELLO };
const responsesRequest = { model: "sim/echo", input: "Hello" };
const made = {};

// In an order in which each finds what it needs.
const calls = {
  "chat.send": async () => { made.id = (await router.chat.send({ chatRequest })).id; },
  "responses.send": () => router.responses.send({ responsesRequest }),
  "beta.responses.send": () => router.beta.responses.send({ responsesRequest }),
  "embeddings.generate": () => router.embeddings.generate({ requestBody: { model: "sim/embedder", input: "Hello" } }),
  "rerank.rerank": () => router.rerank.rerank({ requestBody: { model: "sim/reranker", query: "q", documents: ["a"] } }),
  "images.generate": () => router.images.generate({ imageGenerationRequest: { model: "sim/illustrator", prompt: "A red pixel" } }),
  "tts.createSpeech": async () => {
    for await (const _ of await router.tts.createSpeech({ speechRequest: { model: "sim/voice", input: "Hello", voice: "plain" } }));
  },
  "stt.createTranscription": () => router.stt.createTranscription({
    sttRequest: { model: "sim/scribe", inputAudio: { data: silence().toString("base64"), format: "wav" } },
  }),
  "stt.createTranscriptionMultipart": () => router.stt.createTranscriptionMultipart({
    requestBody: { model: "sim/scribe", file: { fileName: "a.wav", content: silence() } },
  }),
  "videoGeneration.listVideosModels": () => router.videoGeneration.listVideosModels(),
  "videoGeneration.generate": async () => {
    const model = (await router.videoGeneration.listVideosModels()).data[0].id;
    made.job = (await router.videoGeneration.generate({ videoGenerationRequest: { model, prompt: "A red pixel" } })).id;
  },
  "videoGeneration.getGeneration": async () => {
    while ((await router.videoGeneration.getGeneration({ jobId: made.job })).status !== "completed") await sleep(50);
  },
  "videoGeneration.getVideoContent": async () => {
    for await (const _ of await router.videoGeneration.getVideoContent({ jobId: made.job }));
  },
  "images.listModels": () => router.images.listModels(),
  "images.listModelEndpoints": () => router.images.listModelEndpoints({ author: "sim", slug: "poster" }),
  "models.list": async () => all(await router.models.list({ limit: 5 })),
  "models.listForUser": async () => all(await router.models.listForUser({ bearer: KEY }, { limit: 5 })),
  "models.count": () => router.models.count(),
  "models.get": () => router.models.get({ author: "sim", slug: "echo" }),
  "embeddings.listModels": async () => all(await router.embeddings.listModels({ limit: 5 })),
  "endpoints.list": () => router.endpoints.list({ author: "sim", slug: "echo" }),
  "endpoints.listZdrEndpoints": () => router.endpoints.listZdrEndpoints(),
  "providers.list": () => router.providers.list(),
  "generations.getGeneration": () => router.generations.getGeneration({ id: made.id }),
  "generations.listGenerationContent": () => router.generations.listGenerationContent({ id: made.id }),
  "apiKeys.getCurrentKeyMetadata": () => router.apiKeys.getCurrentKeyMetadata(),
  "credits.getCredits": () => router.credits.getCredits(),
  "presets.createPresetsChatCompletions": () => router.presets.createPresetsChatCompletions({ slug: "mine", chatRequest }),
  "presets.createPresetsMessages": () => router.presets.createPresetsMessages({
    slug: "mine", messagesRequest: { model: "sim/echo", messages: HELLO, maxTokens: 9 },
  }),
  "presets.createPresetsResponses": () => router.presets.createPresetsResponses({ slug: "mine", responsesRequest }),
  "presets.list": async () => all(await router.presets.list({ limit: 1 })),
  "presets.get": () => router.presets.get({ slug: "mine" }),
  "presets.listVersions": async () => all(await router.presets.listVersions({ slug: "mine", limit: 1 })),
  "presets.getVersion": () => router.presets.getVersion({ slug: "mine", version: "2" }),
  "apiKeys.create": async () => {
    const [first] = (await manager.apiKeys.list()).data;
    const requestBody = { name: "by the SDK", workspaceId: first.workspaceId };
    made.hash = (await manager.apiKeys.create({ requestBody })).data.hash;
  },
  "apiKeys.list": () => manager.apiKeys.list(),
  "apiKeys.get": () => manager.apiKeys.get({ hash: made.hash }),
  "apiKeys.update": () => manager.apiKeys.update({ hash: made.hash, requestBody: { name: "renamed" } }),
  "apiKeys.delete": () => manager.apiKeys.delete({ hash: made.hash }),
  "analytics.getUserActivity": () => manager.analytics.getUserActivity(),
};

const served = JSON.parse(SERVED);
const told = Object.fromEntries(served.filter((name) => !(name in calls)).map((name) => [name, "not called: add it"]));
for (const [name, call] of Object.entries(calls)) {
  if (!served.includes(name)) continue;
  try {
    await call();
    told[name] = "ok";
  } catch (error) {
    told[name] = `${error?.constructor?.name}: ${error?.message} ${error?.rawValue ? JSON.stringify(error.rawValue).slice(0, 300) : ""}`;
  }
}
console.log(JSON.stringify(told));
