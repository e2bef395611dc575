// The page: chats about images, kept in the browser, whose answers grow as they come.
import { $, element, notice, remembered, speak, spoken, textButton, wireTheme, word } from "/page/dom.js";
import { attach, clearComposer, composed, giveBack, show as showComposer, wireComposer } from "/page/composer.js";
import { ask, hasKey, learn, messages } from "/page/service.js";
import { readSettings, setsJson, setsTools, settingsFields, systemPrompt, wireSettings } from "/page/settings.js";
import { listChats, wireSidebar } from "/page/sidebar.js";
import { chats, keep, newChat, openStore } from "/page/store.js";
import { AnswerNode, questionNode, resultNode } from "/page/turns.js";
import { videosOf } from "/page/videos.js";

const state = { chat: newChat(), model: null, running: null, isSample: false };
const acts = { resend, again, result, awaits };

const turnsBefore = (turn) => {
  const at = state.chat.turns.indexOf(turn);
  return state.chat.turns.slice(0, at < 0 ? undefined : at);
};
const imagesBefore = (turn) => turnsBefore(turn).flatMap((each) => each.images || []);

// ---- what is shown

function render() {
  $("turns").replaceChildren(...state.chat.turns.map(nodeOf));
  $("welcome").hidden = state.chat.turns.length > 0;
  listChats(state.chat.id, { open, gone });
  suggest();
  toTheEnd(true);
}

function nodeOf(turn) {
  if (turn.role === "user") return questionNode(turn, imagesBefore(turn).length, videosOf(turnsBefore(turn)).length, acts);
  if (turn.role === "tool") return resultNode(turn);
  const shown = new AnswerNode(turn, imagesBefore(turn), acts);
  shown.finish();
  return shown.node;
}

function isAtEnd() {
  const talk = $("talk");
  return talk.scrollHeight - talk.scrollTop - talk.clientHeight < 120;
}

// The conversation stays at its end while the visitor looks there, and lets them read elsewhere.
function toTheEnd(isWanted) {
  if (isWanted) $("talk").scrollTop = $("talk").scrollHeight;
}

// Questions that the demo answers well, beside the image that goes with them.
function suggest() {
  const isOffered = state.isSample && (composed().images.length > 0 || state.chat.turns.some((turn) => (turn.images || []).length));
  $("samples").hidden = !isOffered;
  $("samples").replaceChildren(...word("samples").map((text) => textButton(text, () => state.running || submit(text))));
}

function describeMode() {
  $("mode").textContent = [setsJson() && word("json"), setsTools() && word("withTools")].filter(Boolean).join(" · ");
}

function complain(text, retry) {
  const node = element("div", "problem", element("p", "", text));
  node.setAttribute("role", "alert");
  if (retry) node.append(textButton(word("retry"), () => {
    node.remove();
    retry();
  }));
  $("welcome").hidden = true;
  $("turns").append(node);
  toTheEnd(true);
}

function busy(isBusy) {
  $("send").hidden = isBusy;
  $("stop").hidden = !isBusy;
  if (!isBusy) $(hasKey() ? "question" : "key").focus();
}

// ---- chats

function open(chat) {
  if (state.running) state.running.abort();
  state.chat = chat;
  state.isSample = false;
  render();
  $("question").focus();
}

function fresh() {
  clearComposer();
  open(newChat());
}

function gone(id) {
  if (id === null || id === state.chat.id) fresh();
  else render();
}

async function save() {
  if (!state.chat.turns.length) return;
  state.chat.updated = Date.now();
  state.chat.title ||= state.chat.turns[0].text.slice(0, 60);
  if (!(await keep(state.chat))) notice(word("notSaved"));
  listChats(state.chat.id, { open, gone });
}

// ---- questions and answers

function submit(text = composed().text) {
  if (!text || state.running) return;
  const turn = { role: "user", ...composed(), text };
  clearComposer();
  $("welcome").hidden = true;
  for (const node of $("turns").querySelectorAll(":scope > .problem, .call form")) node.remove();
  state.chat.turns.push(turn);
  $("turns").append(nodeOf(turn));
  suggest();
  answer(turn);
}

function resend(turn, text) {
  if (state.running) return;
  const at = state.chat.turns.indexOf(turn);
  const asked = { ...turn, text };
  state.chat.turns.splice(at, Infinity, asked);
  render();
  answer(asked);
}

function again(turn) {
  if (state.running) return;
  state.chat.turns.splice(state.chat.turns.indexOf(turn), Infinity);
  render();
  answer(state.chat.turns.at(-1));
}

// Whether a call of this turn still has no result, and nothing else was said since.
function awaits(turn, call) {
  const since = state.chat.turns.slice(state.chat.turns.indexOf(turn) + 1);
  return since.every((each) => each.role === "tool" && each.id !== call.id);
}

// The result of a call; the model goes on when every call has one.
function result(call, text) {
  if (state.running) return false;
  const calling = state.chat.turns.findLast((each) => each.role === "assistant");
  const turn = { role: "tool", id: call.id, name: call.function.name, text };
  state.chat.turns.push(turn);
  $("turns").append(nodeOf(turn));
  toTheEnd(true);
  save();
  if (!calling.calls.some((each) => awaits(calling, each))) answer(turn);
  return true;
}

async function answer(last) {
  const chat = state.chat;
  const turn = { role: "assistant", text: "", thoughts: "", calls: [], boxes: [], stats: null };
  const shown = new AnswerNode(turn, chat.turns.flatMap((each) => each.images || []), acts);
  $("turns").append(shown.node);
  toTheEnd(true);
  const controller = (state.running = new AbortController());
  busy(true);
  const clock = { start: performance.now(), first: 0 };
  try {
    await read(chat, turn, shown, controller.signal, clock);
    chat.turns.push(turn);
  } catch (error) {
    if (controller.signal.aborted) {
      turn.stopped = true;
      chat.turns.push(turn);
    } else {
      failed(last, turn, shown, error);
      return;
    }
  } finally {
    if (state.running === controller) {
      state.running = null;
      busy(false);
    }
    if (chat === state.chat) save();
    else if (chat.turns.length) keep(chat);
  }
  const wasAtEnd = isAtEnd();
  shown.finish();
  toTheEnd(wasAtEnd);
}

// A question that was not answered goes back to where it can be asked again.
function failed(last, turn, shown, error) {
  const wait = error.retryAfterS ? ` ${word("busy")(error.retryAfterS)}` : "";
  if (turn.text) {
    state.chat.turns.push(turn);
    shown.finish();
  } else shown.node.remove();
  if (last.role !== "user" || turn.text) return complain((error.told || word("lost")) + wait, turn.text ? null : () => answer(last));
  state.chat.turns.splice(state.chat.turns.indexOf(last), 1);
  render();
  giveBack(last);
  complain((error.told || word("lost")) + wait, () => {
    const kept = { ...last, ...composed() };
    submit(kept.text);
  });
}

async function read(chat, turn, shown, signal, clock) {
  const body = {
    ...(state.model ? { model: state.model } : {}),
    messages: messages(chat.turns, systemPrompt()),
    stream: true,
    stream_options: { include_usage: true },
    ...(videosOf(chat.turns).some((video) => !video.frames.length) ? { return_video_frames: true } : {}),
    thinking: $("thinking").checked && !setsJson(),
    ...settingsFields(),
  };
  for await (const event of ask(body, signal, meet)) {
    if (event.videos) seen(chat, event.videos);
    const choice = event.choices[0];
    const delta = choice ? choice.delta : {};
    if (delta.reasoning_content) turn.thoughts += delta.reasoning_content;
    if (delta.content) turn.text += delta.content;
    for (const call of delta.tool_calls || []) addCall(turn.calls, call);
    turn.boxes.push(...(delta.boxes || []));
    if (choice && choice.finish_reason === "length") turn.cut = true;
    if (!clock.first && (delta.content || delta.reasoning_content || delta.tool_calls)) clock.first = performance.now();
    const now = performance.now();
    if (event.usage) turn.stats = { usage: event.usage, firstMs: (clock.first || now) - clock.start, totalMs: now - clock.start };
    shown.show(isAtEnd() ? () => toTheEnd(true) : null);
  }
}

// The frames that the model sees of each of the chat's videos, in order.
function seen(chat, told) {
  videosOf(chat.turns).forEach((video, i) => (video.frames = (told[i] && told[i].frames) || video.frames));
  if (chat !== state.chat) return;
  const nodes = $("turns").querySelectorAll(":scope > article");
  chat.turns.forEach((turn, i) => turn.videos && turn.videos.length && nodes[i].replaceWith(nodeOf(turn)));
}

function addCall(calls, piece) {
  const call = (calls[piece.index || 0] ||= { id: "", type: "function", function: { name: "", arguments: "" } });
  call.id ||= piece.id || "";
  call.function.name ||= piece.function.name || "";
  call.function.arguments += piece.function.arguments || "";
}

// ---- the page itself

// Which model answers here, and whether it is the demo; where a key is needed, not before there is one.
async function meet() {
  const model = await learn();
  if (!model) return;
  state.model = model.id;
  $("model").textContent = document.title = model.id;
  $("badge").hidden = $("demo").hidden = $("sample").hidden = !model.demo;
  document.body.dataset.met = model.id;
}

async function trySample() {
  const image = await fetch("/page/sample.png").then((reply) => reply.blob(), () => null);
  if (!image) return complain(word("lost"));
  state.isSample = true;
  await attach([new File([image], "sample.png", { type: image.type })], complain);
}

function wire() {
  wireSidebar({ open, gone, fresh });
  wireSettings(describeMode);
  wireComposer((images) => {
    $("sample").disabled = images.length > 0;
    suggest();
  }, complain);
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  $("stop").addEventListener("click", () => state.running && state.running.abort());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && state.running && !document.querySelector("dialog[open]")) state.running.abort();
  });
  $("sample").addEventListener("click", trySample);
  $("viewer").querySelector("button").addEventListener("click", () => $("viewer").close());
  $("viewer").addEventListener("click", (event) => event.target === $("viewer") && $("viewer").close());
  $("language").addEventListener("click", () => {
    speak(spoken() === "zh" ? "en" : "zh");
    describeMode();
    showComposer();
    if (!state.running) render();
  });
}

async function begin() {
  wireTheme();
  readSettings();
  speak(remembered("language") || (navigator.language.startsWith("zh") ? "zh" : "en"));
  wire();
  describeMode();
  await openStore();
  const [latest] = chats();
  if (latest) state.chat = latest;
  render();
  $("question").focus();
  await meet();
}

begin();
