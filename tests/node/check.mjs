// What the conformance scripts share: the gateway under test, and a line printed for each check that held.
import assert from "node:assert/strict";

export const { BASE, KEY, POOR_KEY } = process.env;
export const ROOT = BASE.replace("/v1", "");
export const HELLO = [{ role: "user", content: "Hello" }];
export const SAID = "You said: Hello";
export const COST = 2.55e-6;
export const PICTURE =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg==";
export const PARAMETERS = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

export async function check(name, body) {
  try {
    await body();
  } catch (error) {
    console.error(`FAILED ${name}`, error);
    process.exit(1);
  }
  console.log(`ok ${name}`);
}

/** Everything an async iterable gives. */
export async function all(items) {
  const seen = [];
  for await (const item of items) seen.push(item);
  return seen;
}

export const rejects = (promise, type) =>
  assert.rejects(promise, (error) => error instanceof type || assert.fail(`${error?.constructor?.name}: ${error?.message}`));

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
