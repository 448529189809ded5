// The bridge that clients which only start programs put in front of an MCP server.
import assert from "node:assert/strict";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

const { BASE, KEY } = process.env;
for (const path of ["/mcp", "/?tools=apify/openrouter"]) {
  const url = BASE.replace("/api/v1", path);
  const args = ["node_modules/.bin/mcp-remote", url, "--allow-http", "--header", `Authorization: Bearer ${KEY}`];
  const transport = new StdioClientTransport({ command: "node", args, env: process.env, stderr: "ignore" });
  const client = new Client({ name: "test", version: "1" });
  await client.connect(transport);
  const { tools } = await client.listTools();
  assert.deepEqual(tools.map((tool) => tool.name), ["chat", "embed", "list_models", "spending", "apify--openrouter", "get-dataset-items"]);
  const answer = await client.callTool({ name: "chat", arguments: { model: "sim/echo", prompt: "Hello" } });
  assert.equal(answer.content[0].text, "You said: Hello");
  assert.equal(answer.structuredContent.fare_usd, "0.00001");
  const run = await client.callTool({ name: "apify--openrouter", arguments: {} });
  assert.equal(run.structuredContent.status, "SUCCEEDED");
  console.log(`ok mcp-remote ${path}`);
  await client.close();
}
