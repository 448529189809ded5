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
