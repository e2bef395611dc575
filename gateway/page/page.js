// The page: a picture, questions about it, and answers that grow as they come.
"use strict";
const $ = (id) => document.getElementById(id);
const state = { language: "en", picture: null, isSample: false, turns: [], model: null, running: null };
const word = (name) => WORDS[state.language][name];

function speak(language) {
  state.language = language;
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = word("title");
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = word(node.dataset.word);
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = word(node.dataset.placeholder);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", word(node.dataset.label));
  $("language").textContent = language === "zh" ? "English" : "中文";
  $("language").lang = language === "zh" ? "en" : "zh-CN";
  localStorage.setItem("language", language);
  suggest();
}

function paint(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  if (theme) localStorage.setItem("theme", theme);
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function take(file, isSample = false) {
  if (!file) return;
  putAway();
  if (!file.type.startsWith("image/")) return complain(word("notPicture"));
  const reader = new FileReader();
  const refuse = () => {
    putAway();
    complain(word("broken"));
  };
  reader.onerror = refuse;
  reader.onload = () => {
    const image = new Image();
    image.onerror = refuse;
    image.onload = () => show(reader.result, image, file.size, isSample);
    image.src = reader.result;
  };
  reader.readAsDataURL(file);
}

function show(url, image, bytes, isSample) {
  state.picture = url;
  state.isSample = isSample;
  $("preview").src = url;
  $("preview").alt = word("picture");
  $("facts").textContent = `${image.naturalWidth} × ${image.naturalHeight} · ${Math.ceil(bytes / 1024)} kB`;
  $("preview").hidden = $("about").hidden = false;
  $("invite").hidden = $("sample").hidden = true;
  suggest();
  $("question").focus();
}

function putAway() {
  startOver();
  state.picture = null;
  state.isSample = false;
  $("preview").removeAttribute("src");
  $("facts").textContent = $("file").value = "";
  $("preview").hidden = $("about").hidden = true;
  $("invite").hidden = $("sample").hidden = false;
  suggest();
}

// Questions that the demo answers well, beside the picture that goes with them.
function suggest() {
  $("samples").hidden = !state.isSample;
  $("samples").replaceChildren(...word("samples").map((question) => {
    const button = element("button", "plain", question);
    button.type = "button";
    button.addEventListener("click", () => state.running || ask(question));
    return button;
  }));
}

function startOver() {
  if (state.running) state.running.abort();
  state.turns = [];
  for (const node of [...$("talk").children]) if (node.id !== "empty") node.remove();
  $("empty").hidden = false;
}

function bubble(who, text) {
  $("empty").hidden = true;
  const node = element("article", who);
  node.append(element("h2", "", word(who === "you" ? "you" : "model")), element("p", "said", text));
  $("talk").append(node);
  toTheEnd();
  return node;
}

function toTheEnd() {
  $("talk").scrollTop = $("talk").scrollHeight;
}

function complain(text) {
  $("empty").hidden = true;
  const node = element("p", "problem", text);
  node.setAttribute("role", "alert");
  $("talk").append(node);
  toTheEnd();
}

function messages() {
  return state.turns.map((turn, i) => {
    if (i > 0 || !state.picture) return turn;
    return { role: "user", content: [{ type: "image_url", image_url: { url: state.picture } }, { type: "text", text: turn.content }] };
  });
}

async function ask(question) {
  state.turns.push({ role: "user", content: question });
  const asked = bubble("you", question);
  const node = bubble("model", "");
  const said = node.querySelector(".said");
  said.append(element("span", "quiet", word("waiting")));
  const controller = (state.running = new AbortController());
  busy(true);
  try {
    const answer = await stream(node, said, controller.signal);
    if (answer) state.turns.push({ role: "assistant", content: answer });
    else {
      state.turns.pop();
      said.append(element("span", "quiet", word(node.querySelector(".thoughts") ? "onlyThoughts" : "noAnswer")));
      toTheEnd();
    }
  } catch (error) {
    state.turns.pop();
    if (controller.signal.aborted) node.append(element("p", "quiet", word("stopped")));
    else {
      if (said.querySelector(".quiet")) {
        asked.remove();
        node.remove();
      }
      if (!$("question").value) $("question").value = question;
      complain(error.told || word("lost"));
    }
  } finally {
    if (state.running === controller) {
      state.running = null;
      busy(false);
    }
  }
}

async function stream(node, said, signal) {
  const headers = { "Content-Type": "application/json" };
  const key = $("key").value || sessionStorage.getItem("key");
  if (key) headers.Authorization = `Bearer ${key}`;
  const body = { model: state.model || undefined, messages: messages(), stream: true, stream_options: { include_usage: true }, thinking: $("thinking").checked };
  const response = await fetch("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!response.ok) throw told(await refusal(response, key));
  if (key && key !== sessionStorage.getItem("key")) {
    sessionStorage.setItem("key", key);
    learn();
  }
  let answer = "", thoughts = null, isFirst = true;
  for await (const event of events(response.body)) {
    if (event.error) throw told(event.error.message);
    const delta = event.choices.length ? event.choices[0].delta : {};
    if (delta.reasoning_content) {
      if (!thoughts) {
        const box = element("details", "thoughts");
        thoughts = element("p");
        box.append(element("summary", "", word("thoughts")), thoughts);
        node.insertBefore(box, said);
      }
      thoughts.textContent += delta.reasoning_content;
    }
    if (delta.content) {
      if (isFirst) said.textContent = "";
      isFirst = false;
      answer += delta.content;
      said.append(delta.content);
      toTheEnd();
    }
    if (event.usage) node.append(element("p", "stats quiet", stats(event.usage, event.timings)));
  }
  if (isFirst) said.textContent = "";
  toTheEnd();
  return answer;
}

// What a visitor is told of an answer that is none, whoever on the way to the service gave it.
async function refusal(response, key) {
  if (response.status === 401) {
    $("key-row").hidden = false;
    sessionStorage.removeItem("key");
    return word(key ? "wrongKey" : "needsKey");
  }
  const body = await response.json().catch(() => null);
  if (body && body.error && body.error.message) return body.error.message;
  return response.status === 413 ? word("tooLarge") : word("unreadable")(response.status);
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

function stats(usage, timings) {
  const seconds = (ms) => (ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms)} ms`);
  const first = timings.first_token_ms || 0;
  const rest = Math.max(1, timings.total_ms - first);
  return word("stats")(
    { ...usage, image_tokens: usage.prompt_tokens_details.image_tokens },
    { first: seconds(first), total: seconds(timings.total_ms), rate: Math.round((1000 * Math.max(0, usage.completion_tokens - 1)) / rest) },
  );
}

// Which model answers here, and whether it is the demo; where a key is needed, not before there is one.
async function learn() {
  const key = sessionStorage.getItem("key");
  const reply = await fetch("/v1/models", key ? { headers: { Authorization: `Bearer ${key}` } } : {}).catch(() => null);
  if (reply && reply.status === 401) $("key-row").hidden = false;
  if (!reply || !reply.ok) return;
  const [model] = (await reply.json()).data;
  state.model = model.id;
  $("model").textContent = model.id;
  $("badge").hidden = $("demo").hidden = !model.demo;
}

function told(text) {
  return Object.assign(new Error(text), { told: text });
}

function busy(isBusy) {
  $("send").disabled = isBusy;
  $("stop").hidden = !isBusy;
  if (!isBusy) $($("key-row").hidden || $("key").value || sessionStorage.getItem("key") ? "question" : "key").focus();
}

$("drop").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    $("file").click();
  }
});
$("file").addEventListener("change", () => take($("file").files[0]));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((found) => found.type.startsWith("image/"));
  if (file) take(file);
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || state.running) return;
  $("question").value = "";
  ask(question);
});
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});
$("key").addEventListener("keydown", (event) => {
  if (event.key === "Enter") $("ask").requestSubmit();
});
$("stop").addEventListener("click", () => state.running && state.running.abort());
$("remove").addEventListener("click", putAway);
$("sample").addEventListener("click", async () => {
  const picture = await fetch("/page/sample.png").then((reply) => reply.blob(), () => null);
  if (picture) take(picture, true);
  else complain(word("lost"));
});
$("again").addEventListener("click", startOver);
$("language").addEventListener("click", () => speak(state.language === "zh" ? "en" : "zh"));
$("theme").addEventListener("click", () => paint(isDark() ? "light" : "dark"));
paint(localStorage.getItem("theme"));
speak(localStorage.getItem("language") || (navigator.language.startsWith("zh") ? "zh" : "en"));
learn();
