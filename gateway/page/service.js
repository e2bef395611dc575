// Everything that is asked of the service: which model answers here, and answers that grow as they come.
import { $, word } from "/page/dom.js";

const sessionKey = () => sessionStorage.getItem("key");
export const hasKey = () => Boolean($("key-row").hidden || $("key").value || sessionKey());

// The model's entry of /v1/models; null where it cannot be asked (yet).
export async function learn() {
  const key = sessionKey();
  const reply = await fetch("/v1/models", key ? { headers: { Authorization: `Bearer ${key}` } } : {}).catch(() => null);
  if (reply && reply.status === 401) $("key-row").hidden = false;
  return reply && reply.ok ? (await reply.json()).data[0] : null;
}

export function told(text, retryAfterS = 0) {
  return Object.assign(new Error(text), { told: text, retryAfterS });
}

// The events of a streamed answer; raises an error whose `told` is a sentence for the visitor.
export async function* ask(body, signal, whenAllowed) {
  const headers = { "Content-Type": "application/json" };
  const key = $("key").value || sessionKey();
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await fetch("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!response.ok) throw await refusal(response, key);
  if (key && key !== sessionKey()) {
    sessionStorage.setItem("key", key);
    whenAllowed();
  }
  for await (const event of events(response.body)) {
    if (event.error) throw told(sentence(event.error));
    yield event;
  }
}

// What a visitor is told of an answer that is none, whoever on the way to the service gave it.
async function refusal(response, key) {
  if (response.status === 401) {
    $("key-row").hidden = false;
    sessionStorage.removeItem("key");
    return told(word(key ? "wrongKey" : "needsKey"));
  }
  const seconds = Number(response.headers.get("Retry-After")) || 0;
  const body = await response.json().catch(() => null);
  if (body && body.error && body.error.message) return told(sentence(body.error), seconds);
  return told(response.status === 413 ? word("tooLarge") : word("unreadable")(response.status), seconds);
}

// What the service says of an error, in the visitor's language where its code is known.
function sentence({ code, message }) {
  const known = Object.hasOwn(word("errors"), code) ? word("errors")[code] : null;
  return known ? known(message) : message;
}

async function* events(body) {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    held += decoder.decode(value, { stream: !done });
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      if (!part.startsWith("data: ")) continue; // a sign of life
      if (part === "data: [DONE]") return;
      yield JSON.parse(part.slice(6));
    }
    if (done) throw told(word("lost"));
  }
}

// A chat's turns as OpenAI's messages.
export function messages(turns, system) {
  const made = system ? [{ role: "system", content: system }] : [];
  for (const turn of turns) {
    if (turn.role === "user") made.push({ role: "user", content: parts(turn) });
    else if (turn.role === "tool") made.push({ role: "tool", tool_call_id: turn.id, content: turn.text });
    else made.push({ role: "assistant", content: turn.text, ...(turn.calls.length ? { tool_calls: turn.calls } : {}) });
  }
  return made;
}

function parts(turn) {
  const images = turn.images.map((image) => ({ type: "image_url", image_url: { url: image.url } }));
  const videos = (turn.videos || []).map((video) => ({ type: "video_url", video_url: { url: video.url } }));
  if (!images.length && !videos.length) return turn.text;
  return [...images, ...videos, { type: "text", text: turn.text }];
}
