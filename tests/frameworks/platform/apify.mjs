// The platform's JavaScript client, the newest and an older one: its documented example, then orders packed by brotli or gzip.
import assert from "node:assert/strict";
import { ApifyClient } from "apify-client";
import { ApifyClient as OldClient } from "apify-client-2.12";

const { BASE, KEY } = process.env;
for (const [name, Client] of [["2.25", ApifyClient], ["2.12", OldClient]]) {
  const client = new Client({ token: KEY, baseUrl: BASE.replace("/api/v1", "") });
  const input = {};
  const run = await client.actor("apify/openrouter").call(input);
  assert.equal(run.status, "SUCCEEDED");
  const { items } = await client.dataset(run.defaultDatasetId).listItems();
  assert.deepEqual(items, []);
  console.log(`ok the example, ${name}`);

  const order = { model: "sim/echo", messages: [{ role: "user", content: "Hello ".repeat(400) }] };
  const served = await client.actor("apify/openrouter").call({ requests: [order, order] });
  const found = await client.dataset(served.defaultDatasetId).listItems({ desc: true, limit: 1 });
  assert.deepEqual([found.total, found.count, found.items[0].number], [2, 1, 2]);
  const output = await client.keyValueStore(served.defaultKeyValueStoreId).getRecord("OUTPUT");
  assert.equal(output.value.served, 2);
  assert.equal(await client.run("nobody").get(), undefined);
  assert.equal(await client.dataset("nobody").get(), undefined);
  assert.match(await client.log(served.id).get(), /2 orders served/);
  console.log(`ok orders, ${name}`);
  await assert.rejects(client.actor("apify/openrouter").call({ requests: 5 }), /Input is not valid: requests/);
  console.log(`ok an input that is wrong, ${name}`);
}

// Each method of the newest client that is served; what is not is listed, so that what a new version brings is looked at.
const baseUrl = BASE.replace("/api/v1", "");
const client = new ApifyClient({ token: KEY, baseUrl, publicBaseUrl: baseUrl });
const NOT_SERVED = {
  ActorClient: "update delete validateInput build builds version versions webhooks",
  RunClient: "delete metamorph resurrect",
  RunCollectionClient: "",
  DatasetClient: "update delete getStatistics",
  KeyValueStoreClient: "update delete deleteRecord",
  RequestQueueClient:
    "update delete listHead listAndLockHead addRequest batchAddRequests batchDeleteRequests getRequest updateRequest deleteRequest prolongRequestLock deleteRequestLock listRequests unlockRequests paginateRequests",
  LogClient: "",
  BuildClient: "abort delete getOpenApiDefinition log",
  UserClient: "monthlyUsage limits updateLimits",
};
const called = {};
const methods = (of) => Object.getOwnPropertyNames(Object.getPrototypeOf(of)).filter((name) => !/^(_|constructor)/.test(name));
const watched = (of) =>
  new Proxy(of, {
    get(_, name) {
      if (!methods(of).includes(name)) return of[name];
      (called[of.constructor.name] ??= new Set()).add(name);
      return (...given) => {
        const found = of[name](...given);
        return found?.constructor?.name in NOT_SERVED ? watched(found) : found;
      };
    },
  });

const actor = watched(client.actor("apify/openrouter"));
const order = { model: "sim/echo", messages: [{ role: "user", content: "Hello" }] };
const run = await actor.call({ requests: [order] }, { build: "latest", memory: 256, timeout: 60, maxTotalChargeUsd: 0.5, log: null });
assert.deepEqual([run.options.maxTotalChargeUsd, run.startedAt instanceof Date], [0.5, true]);
const slow = { ...order, model: "sim/echo:token-ms=60" };
const going = await actor.start({ requests: Array(40).fill(slow), concurrency: 1 }, { waitForFinish: 0, webhooks: [] });
const ofGoing = watched(client.run(going.id));
assert.equal((await ofGoing.reboot()).id, going.id);
assert.match((await ofGoing.abort({ gracefully: true })).status, /^ABORT(ING|ED)$/);
assert.equal((await ofGoing.waitForFinish({ waitSecs: 60 })).status, "ABORTED");
const hook = { eventTypes: ["ACTOR.RUN.SUCCEEDED"], requestUrl: "https://example.com/" };
await assert.rejects(actor.start({}, { webhooks: [hook] }), /webhooks: /);
await assert.rejects(actor.start({}, { maxItems: 1 }), /maxItems: /);
assert.equal((await actor.get()).name, "openrouter");
assert.equal((await (await actor.defaultBuild()).get()).id, run.buildId);
for (const runs of [actor.runs(), watched(client.runs())]) {
  const ids = (await runs.list({ status: ["SUCCEEDED"], desc: true, limit: 1 })).items.map((each) => each.id);
  assert.deepEqual(ids, [run.id]);
}
const ofRun = watched(client.run(run.id));
await ofRun.charge({ eventName: "openrouter-api-usage", count: 2, idempotencyKey: "k" });
assert.deepEqual((await ofRun.get()).chargedEventCounts, { "openrouter-api-usage": 2 });
assert.equal((await ofRun.update({ statusMessage: "so it is", isStatusMessageTerminal: true })).statusMessage, "so it is");
await (await ofRun.getStreamedLog())?.stop?.().catch(() => {});
for (const of of [ofRun, actor.lastRun({ status: "SUCCEEDED" })]) {
  assert.equal((await of.dataset().get()).itemCount, 1);
  assert.equal((await of.keyValueStore().get()).id, run.defaultKeyValueStoreId);
  assert.equal((await of.keyValueStore().getRecord("OUTPUT")).value.served, 1);
  assert.equal((await of.requestQueue().get()).id, run.defaultRequestQueueId);
  assert.match(await of.log().get(), /1 orders served/);
}
const dataset = watched(client.dataset(run.defaultDatasetId));
assert.equal((await dataset.get()).itemCount, 1);
await dataset.pushItems([{ number: 2, list: [{ a: 1 }, { a: 2 }], deep: { b: 1 } }]);
const shaped = await dataset.listItems({ offset: 1, unwind: ["list"], flatten: ["deep"], clean: true });
assert.deepEqual(shaped.items, [{ number: 2, "deep.b": 1, a: 1 }, { number: 2, "deep.b": 1, a: 2 }]);
const csv = { bom: false, delimiter: ";", fields: ["number", "status"], skipHeaderRow: true, attachment: true };
assert.equal((await dataset.downloadItems("csv", csv)).toString(), "1;200\r\n2;\r\n");
await assert.rejects(dataset.downloadItems("xlsx"), /format: /);
const open = async (url) => assert.ok(url.startsWith(baseUrl)) ?? (await fetch(url, { headers: { authorization: `Bearer ${KEY}` } })).text();
assert.match(await open(await dataset.createItemsPublicUrl({ fields: ["number"] })), /"number":2/);
const store = watched(client.keyValueStore(run.defaultKeyValueStoreId));
await store.setRecord({ key: "STATE", value: { so: "far" } });
assert.equal((await store.get()).id, run.defaultKeyValueStoreId);
const { items: keys } = await store.listKeys({ prefix: "ST", limit: 1 });
assert.deepEqual(keys.map((each) => each.key), ["STATE"]);
for (const url of [keys[0].recordPublicUrl, await store.getRecordPublicUrl("STATE")]) assert.match(await open(url), /far/);
assert.match(await open(await store.createKeysPublicUrl()), /STATE/);
assert.deepEqual((await store.getRecord("STATE")).value, { so: "far" });
assert.deepEqual([await store.recordExists("STATE"), await store.recordExists("NOBODY")], [true, false]);
assert.equal((await watched(client.requestQueue(run.defaultRequestQueueId)).get()).totalRequestCount, 0);
const log = watched(client.log(run.id));
let streamed = "";
for await (const piece of await log.stream({ raw: true })) streamed += piece;
assert.equal(streamed, await log.get({ raw: true }));
const build = watched(client.build(run.buildId));
assert.equal((await build.get()).buildNumber, (await build.waitForFinish({ waitSecs: 1 })).buildNumber);
assert.equal((await watched(client.user(run.userId)).get()).username, (await client.user("me").get()).username);
for (const kind of ["actor", "run", "dataset", "keyValueStore", "requestQueue", "log", "build", "user"]) {
  const of = client[kind]("nobody");
  const served = methods(of).filter((name) => !NOT_SERVED[of.constructor.name].split(" ").includes(name));
  assert.deepEqual([...called[of.constructor.name]].sort(), served.sort(), kind);
}
console.log("ok each method that is served");
