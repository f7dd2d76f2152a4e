// The live panel of the front page: asks the server about this page and shows what it says.

import { blake3 } from "./blake3.js";

const panel = document.getElementById("live");
const byHand = document.getElementById("by-hand");
const say = panel.querySelector(".say");
const button = panel.querySelector("button");
const url = location.pathname;

const REASONS = {
  200: "OK", 206: "Partial Content", 304: "Not Modified", 404: "Not Found",
  412: "Precondition Failed", 416: "Range Not Satisfiable", 503: "Service Unavailable",
};
const kind = (status) => (status === 304 ? "same" : status < 300 ? "ok" : "refused");

// `no-store` keeps the browser's cache out of it: the script sees the 304 itself.
const ask = (method, headers = {}) => fetch(url, { method, headers, cache: "no-store" });

const short = (tag) => tag.replace(/([0-9a-f]{8})[0-9a-f]{40,}([0-9a-f]{4})/, "$1…$2");

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function showField(fields, name, value) {
  fields.append(element("dt", "", name), element("dd", "", value ?? "(not sent)"));
}

function showExchange(exchanges, request, status, outcome, meaning) {
  const item = document.createElement("li");
  item.append(
    element("code", "", request),
    element("span", `status ${outcome}`, status),
    element("p", "meaning", meaning),
  );
  exchanges.append(item);
}

function showResponse(exchanges, request, response, meaning) {
  const reason = REASONS[response.status] ?? "";
  showExchange(exchanges, request, `${response.status} ${reason}`.trim(), kind(response.status), meaning);
}

// Fills both lists and says how it went.
async function run(fields, exchanges) {
  const started = performance.now();
  const head = await ask("HEAD");
  const tag = head.headers.get("ETag");
  for (const name of ["ETag", "Cache-Control", "Last-Modified", "Content-Length"]) {
    showField(fields, name, head.headers.get(name));
  }
  showResponse(exchanges, `HEAD ${url}`, head, "The fields above.");
  if (!tag) return "No ETag came back: this page is not being served by etagd.";

  const same = await ask("HEAD", { "If-None-Match": tag });
  showResponse(exchanges, `If-None-Match: ${short(tag)}`, same,
    same.status === 304 ? "You hold the current representation; no content was sent." : "The page has changed in between.");

  const wrong = `"${"0".repeat(64)}"`;
  const failed = await ask("HEAD", { "If-Match": wrong });
  showResponse(exchanges, `If-Match: ${short(wrong)}`, failed,
    failed.status === 412 ? "Nothing here has that tag, so the request was not performed." : "The precondition was not evaluated.");

  const part = await ask("GET", { "Range": "bytes=0-14", "If-Range": tag });
  const start = part.status === 206 ? await part.text() : null;
  showResponse(exchanges, `Range: bytes=0-14, If-Range: ${short(tag)}`, part,
    start === null ? "The whole page came instead." : `Fifteen bytes of this very version: ${start}`);

  const whole = await ask("GET");
  const bytes = new Uint8Array(await whole.arrayBuffer());
  if (whole.ok && !whole.headers.has("Content-Encoding")) {
    const hash = blake3(bytes);
    const agrees = whole.headers.get("ETag") === `"${hash}"`;
    showExchange(exchanges, `GET ${url}, then BLAKE3 of ${bytes.length} bytes in this browser`,
      agrees ? "equal" : "differs", agrees ? "ok" : "refused",
      `${short(hash)} ${agrees ? "is" : "is not"} what the ETag says.`);
  }
  return `Asked in ${Math.round(performance.now() - started)} ms.`;
}

// The old answers stay until the new ones are complete.
async function refresh() {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  const fields = document.createDocumentFragment();
  const exchanges = document.createDocumentFragment();
  try {
    say.textContent = await run(fields, exchanges);
    panel.querySelector("dl").replaceChildren(fields);
    panel.querySelector(".exchanges").replaceChildren(exchanges);
    byHand.hidden = true;
  } catch {
    say.textContent = "The server did not answer. Is etagd still running?";
  } finally {
    button.removeAttribute("aria-disabled");
    panel.hidden = false;
  }
}

button.addEventListener("click", refresh);
refresh();
