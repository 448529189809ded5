// The playground's stream: without this script the form is answered by a page. Whatever a model or an upstream says
// becomes text, never markup.
const form = document.getElementById("play");
const at = form.dataset.at;
const part = (id) => document.getElementById(id);
const RAW_MAX = 200_000; // characters of an answer's bytes that are shown
const ASKED_AGAIN = [0, 500, 1000, 2000, 4000, 8000]; // milliseconds before each look for the fare

let running = null;

const sent = () => {
  const fields = new FormData(form);
  fields.delete("once");
  return new URLSearchParams(fields);
};

form.addEventListener("submit", (event) => {
  event.preventDefault();
  showCode();
  if (event.submitter?.id !== "as-code" && part("send")) order();
});

part("stop")?.addEventListener("click", () => running?.abort());
addEventListener("pagehide", () => running?.abort());

async function showCode() {
  const answer = await fetch(`${at}/playground/code.json`, { method: "POST", body: sent() });
  if (!answer.ok) return tellProblem(answer.status, await answer.text(), answer);
  const { data } = await answer.json();
  part("code").replaceChildren(...data.map(({ name, code }, number) => {
    const details = document.createElement("details");
    details.className = "code";
    details.open = number === 0;
    const summary = document.createElement("summary");
    summary.textContent = name;
    const copy = document.createElement("button");
    copy.type = "button";
    copy.textContent = "Copy";
    copy.dataset.copies = `code-${number + 1}`;
    copy.hidden = !navigator.clipboard;
    const pre = document.createElement("pre");
    pre.id = copy.dataset.copies;
    pre.tabIndex = 0;
    pre.textContent = code;
    details.append(summary, copy, pre);
    return details;
  }));
}

async function order() {
  if (running) return;
  running = new AbortController();
  begin();
  const began = performance.now();
  let generation = null;
  let isStopped = false;
  try {
    const answer = await fetch(`${at}/playground/answer`, { method: "POST", body: sent(), signal: running.signal });
    generation = answer.headers.get("x-generation-id");
    if (!answer.ok) {
      tellProblem(answer.status, await answer.text(), answer);
      return;
    }
    part("answered").hidden = false;
    tellCap(answer.headers.get("x-farebox-answer-cap"));
    const read = readerOf(new FormData(form).get("format"), answer.headers.get("content-type") ?? "");
    const texts = new TextDecoder();
    const bytes = answer.body.getReader();
    for (let isFirst = true; ; ) {
      const { done, value } = await bytes.read();
      if (done) break;
      if (isFirst) part("first").textContent = `${((performance.now() - began) / 1000).toFixed(3)} s`;
      isFirst = false;
      const text = texts.decode(value, { stream: true });
      if (part("raw").textContent.length < RAW_MAX) part("raw").append(text);
      read.take(text);
    }
    read.end();
    generation ??= read.generation;
  } catch (error) {
    isStopped = error.name === "AbortError";
    if (!isStopped) showProblem("The connection broke. What the order cost is asked for: see Orders.");
  } finally {
    end();
  }
  part("told").textContent = isStopped ? "Stopped. What it cost so far is asked for." : "The answer has ended.";
  if (generation) await tellFare(generation);
}

function begin() {
  for (const id of ["said", "raw", "fare", "first", "tokens"]) part(id).textContent = "";
  if (part("cost")) part("cost").textContent = "";
  for (const id of ["problem", "short", "capped", "answered"]) part(id).hidden = true;
  part("when").textContent = "First byte after";
  part("order").href = `${at}/orders`;
  part("order").textContent = "Orders";
  part("told").textContent = "The order is under way.";
  part("said").setAttribute("aria-busy", "true");
  part("send").disabled = true;
  part("stop").hidden = false;
}

function end() {
  running = null;
  part("told").textContent = "";
  part("said").setAttribute("aria-busy", "false");
  part("send").disabled = false;
  part("stop").hidden = true;
}

// What an answer says, in each format: whole, or event by event.
const SAID = {
  chat: {
    whole: (all) => [all.choices?.[0]?.message?.content, all.choices?.[0]?.message?.refusal],
    event: (one) => [one.choices?.[0]?.delta?.content, one.choices?.[0]?.delta?.refusal],
  },
  messages: {
    whole: (all) => (all.content ?? []).map((each) => each.text),
    event: (one) => [one.type === "content_block_delta" ? one.delta?.text : null],
  },
  responses: {
    whole: (all) => (all.output ?? []).flatMap((each) => each.content ?? []).flatMap((each) => [each.text, each.refusal]),
    event: (one) => [/^response\.(output_text|refusal)\.delta$/.test(one.type) ? one.delta : null],
  },
};

function readerOf(format, type) {
  const isStream = type.startsWith("text/event-stream");
  const read = { generation: null };
  let rest = "";
  const hear = (json, find) => {
    let found;
    try {
      found = JSON.parse(json);
    } catch {
      return; // [DONE], or no JSON: it stands under what came
    }
    const failure = found?.error ?? found?.response?.error ?? (found?.type === "error" ? found : null);
    if (failure) showProblem(String(failure.message ?? failure));
    read.generation ??= found?.response?.id ?? found?.message?.id ?? found?.id ?? null;
    for (const text of find(found ?? {})) if (typeof text === "string") part("said").append(text);
  };
  read.take = (text) => {
    rest += text;
    if (!isStream) return;
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) hear(line.slice(5), SAID[format].event);
  };
  read.end = () => isStream || hear(rest, SAID[format].whole);
  return read;
}

function showProblem(message) {
  part("problem").textContent = message;
  part("problem").hidden = false;
}

function tellProblem(status, body, answer) {
  let message = `It was refused (${status}).`;
  if ((answer.headers.get("content-type") ?? "").startsWith("text/html")) {
    // A page that says why. It is read and never shown, so nothing in it runs.
    message = new DOMParser().parseFromString(body, "text/html").querySelector(".problem")?.textContent ?? message;
  } else {
    try {
      message = String(JSON.parse(body).error.message);
    } catch {
      // what came is no refusal of the format's
    }
  }
  showProblem(message);
  if (part("short")) part("short").hidden = status !== 402;
}

function tellCap(cap) {
  part("capped").hidden = !cap;
  part("cap-told").textContent = cap ?? "";
}

const dollars = (amount) => {
  const [whole, fraction = ""] = amount.split(".");
  return `$${Number(whole).toLocaleString("en")}.${fraction.padEnd(2, "0")}`;
};

// What the books say of the order: at once where its cost came with the answer, later where it is asked for.
async function tellFare(generation) {
  for (const pause of ASKED_AGAIN) {
    await new Promise((go) => setTimeout(go, pause));
    if (running) return;
    const answer = await fetch(`${at}/generations/${encodeURIComponent(generation)}.json`);
    if (!answer.ok) continue;
    const [row] = (await answer.json()).data;
    part("order").href = `${at}/orders/${encodeURIComponent(row.order)}`;
    part("order").textContent = "The order's page";
    part("tokens").textContent = `${row.prompt_tokens ?? "–"}, ${row.answer_tokens ?? "–"}`;
    if (part("cost")) part("cost").textContent = row.cost_usd ? dollars(row.cost_usd) : "–";
    const isKnown = row.state === "posted" || row.state === "voided";
    part("fare").textContent = isKnown ? dollars(row.fare_usd ?? "0") : "not known yet";
    if (isKnown) return;
  }
}
