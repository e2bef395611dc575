// The page: a picture, questions about it, and answers that grow as they come.
"use strict";
const $ = (id) => document.getElementById(id);
const state = { language: "en", picture: null, turns: [], model: null, running: null };
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

function take(file) {
  if (!file) return;
  if (!file.type.startsWith("image/")) return complain(word("notPicture"));
  const reader = new FileReader();
  reader.onload = () => {
    startOver();
    state.picture = reader.result;
    $("preview").src = reader.result;
    $("preview").alt = word("picture");
    $("preview").hidden = false;
    $("invite").hidden = true;
    $("preview").onload = () => {
      $("facts").textContent = `${$("preview").naturalWidth} × ${$("preview").naturalHeight} · ${Math.ceil(file.size / 1024)} kB`;
    };
    $("question").focus();
  };
  reader.readAsDataURL(file);
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
  $("talk").scrollTop = $("talk").scrollHeight;
  return node;
}

function complain(text) {
  $("empty").hidden = true;
  const node = element("p", "problem", text);
  node.setAttribute("role", "alert");
  $("talk").append(node);
  $("talk").scrollTop = $("talk").scrollHeight;
}

function messages() {
  return state.turns.map((turn, i) => {
    if (i > 0 || !state.picture) return turn;
    return { role: "user", content: [{ type: "image_url", image_url: { url: state.picture } }, { type: "text", text: turn.content }] };
  });
}

async function ask(question) {
  state.turns.push({ role: "user", content: question });
  bubble("you", question);
  const node = bubble("model", "");
  const said = node.querySelector(".said");
  said.append(element("span", "quiet", word("waiting")));
  const controller = (state.running = new AbortController());
  busy(true);
  try {
    const answer = await stream(node, said, controller.signal);
    state.turns.push({ role: "assistant", content: answer });
  } catch (error) {
    state.turns.pop();
    if (controller.signal.aborted) node.append(element("p", "quiet", word("stopped")));
    else {
      if (!said.textContent || said.querySelector(".quiet")) node.remove();
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
  if (!response.ok) {
    if (response.status === 401) $("key-row").hidden = false;
    throw told((await response.json()).error.message);
  }
  if (key) sessionStorage.setItem("key", key);
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
      $("talk").scrollTop = $("talk").scrollHeight;
    }
    if (event.usage) node.append(element("p", "stats quiet", stats(event.usage, event.timings)));
  }
  if (isFirst) said.textContent = "";
  $("talk").scrollTop = $("talk").scrollHeight;
  return answer;
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

function told(text) {
  return Object.assign(new Error(text), { told: text });
}

function busy(isBusy) {
  $("send").disabled = isBusy;
  $("stop").hidden = !isBusy;
  if (!isBusy) $("question").focus();
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
$("stop").addEventListener("click", () => state.running && state.running.abort());
$("again").addEventListener("click", startOver);
$("language").addEventListener("click", () => speak(state.language === "zh" ? "en" : "zh"));
$("theme").addEventListener("click", () => paint(isDark() ? "light" : "dark"));
paint(localStorage.getItem("theme"));
speak(localStorage.getItem("language") || (navigator.language.startsWith("zh") ? "zh" : "en"));
fetch("/v1/models").then(async (reply) => {
  if (reply.status === 401) $("key-row").hidden = false;
  if (!reply.ok) return;
  state.model = (await reply.json()).data[0].id;
  $("model").textContent = state.model;
}).catch(() => {});
