// Beside an address's fields: code that asks it, a place to try it, and an example of its answer.
import { copy, element, iconButton, textButton, word } from "/page/dom.js";
import { LANGUAGES, sample } from "/page/docs/samples.js";
import { contentOf } from "/page/docs/tables.js";

const MOST_SHOWN = 200000; // letters of an answer
const IMAGE = /^(data:image\/[\w.+-]+;base64,)?[A-Za-z0-9+/]{100,}={0,2}$/;
const MOST_COLOURED = 20000;
let coloured = null;

export function workbench({ path, method, found, service, typed }) {
  const node = element("div", "bench");
  const id = `${method} ${path}`;
  const content = contentOf(found.requestBody);
  const example = content ? content.example : undefined;
  const asked = () => ({ path: filled(), method, origin: location.origin, needsKey: service.needsKey, model: service.model });
  const names = (path.match(/{\w+}/g) || []).map((each) => each.slice(1, -1));
  const fields = names.map((name) => pathField(name, service.model));
  const filled = () => names.reduce((text, name, i) => text.replace(`{${name}}`, encodeURIComponent(fields[i].input.value)), path);

  const editor = content ? bodyEditor(id, example, typed, () => code.show()) : null;
  const code = codeTabs(id, (language) => sample(language, { ...asked(), body: editor ? editor.value() : undefined }));
  node.append(code.node);
  const trial = element("div", "trial");
  for (const field of fields) {
    field.input.addEventListener("input", () => code.show());
    trial.append(field.node);
  }
  if (editor) trial.append(editor.node);
  const output = element("div", "output");
  output.setAttribute("aria-live", "polite");
  trial.append(buttons(trial, editor, (controller) => send({ ...asked(), text: editor && editor.text() }, output, controller)), output);
  node.append(element("details", "", element("summary", "", word("tryIt")), trial));
  const good = contentOf(found.responses["200"]);
  if (good && good.example) node.append(element("h3", "", word("anAnswer")), codeBlock(JSON.stringify(good.example, null, 2), "json"));
  code.show();
  return node;
}

function pathField(name, value) {
  const input = element("input");
  input.value = value;
  return { input, node: element("label", "", element("code", "", name), input) };
}

function bodyEditor(id, example, typed, whenChanged) {
  const area = element("textarea", "code");
  area.setAttribute("aria-label", word("requestBody"));
  area.spellcheck = false;
  area.value = typed.get(id) ?? JSON.stringify(example ?? {}, null, 2);
  area.rows = Math.min(16, area.value.split("\n").length + 1);
  const problem = element("p", "problem");
  problem.hidden = true;
  let right = example ?? {};
  const read = () => {
    try {
      right = JSON.parse(area.value);
      problem.hidden = true;
    } catch (error) {
      problem.textContent = word("badJson")(error.message);
      problem.hidden = false;
    }
  };
  const changed = () => {
    typed.set(id, area.value);
    read();
    whenChanged();
  };
  area.addEventListener("input", changed);
  read();
  return {
    node: element("div", "", area, problem),
    value: () => right,
    text: () => area.value,
    isRight: () => problem.hidden,
    set: (value) => {
      area.value = JSON.stringify(value, null, 2);
      changed();
    },
    reset: () => {
      area.value = JSON.stringify(example ?? {}, null, 2);
      changed();
    },
  };
}

// A picker for an image of the visitor's, where the body has one.
function ownImage(editor) {
  const input = element("input", "hidden");
  input.type = "file";
  input.accept = "image/*";
  input.tabIndex = -1;
  input.setAttribute("aria-hidden", "true");
  const button = textButton(word("yourImage"), () => input.click());
  input.addEventListener("change", () => {
    if (!input.files.length) return;
    const reader = new FileReader();
    reader.onload = () => editor.set(withImage(editor.value(), reader.result));
    reader.readAsDataURL(input.files[0]);
    input.value = "";
  });
  return [button, input];
}

const hasImage = (value) =>
  typeof value === "string" ? IMAGE.test(value) : Boolean(value && typeof value === "object" && Object.values(value).some(hasImage));

// The same body with this image (a data URL) wherever it had one.
function withImage(value, url) {
  if (typeof value === "string") return !IMAGE.test(value) ? value : value.startsWith("data:") ? url : url.slice(url.indexOf(",") + 1);
  if (Array.isArray(value)) return value.map((each) => withImage(each, url));
  if (!value || typeof value !== "object") return value;
  const made = Object.fromEntries(Object.entries(value).map(([name, each]) => [name, withImage(each, url)]));
  if ("media_type" in made && hasImage(value.data)) made.media_type = url.slice(5, url.indexOf(";"));
  return made;
}

function buttons(trial, editor, ask) {
  let controller = null;
  const stop = textButton(word("stop"), () => controller.abort());
  stop.hidden = true;
  const start = textButton(word("sendRequest"), async () => {
    if (editor && !editor.isRight()) return trial.querySelector("textarea").focus();
    controller = new AbortController();
    [start.hidden, stop.hidden] = [true, false];
    await ask(controller);
    [start.hidden, stop.hidden] = [false, true];
  }, "");
  const row = element("div", "row", start, stop);
  if (editor) {
    if (hasImage(editor.value())) row.append(...ownImage(editor));
    row.append(textButton(word("resetBody"), () => editor.reset()));
  }
  return row;
}

// Sends the request, and shows the answer as it comes: status, time, the request's id, and the body.
async function send({ path, method, text }, output, controller) {
  const key = sessionStorage.getItem("key");
  const headers = { ...(key ? { Authorization: `Bearer ${key}` } : {}), ...(text ? { "Content-Type": "application/json" } : {}) };
  const line = element("p", "quiet", word("asking"));
  const shown = element("pre");
  shown.tabIndex = 0;
  output.replaceChildren(line);
  const start = performance.now();
  const passed = () => `${Math.round(performance.now() - start)} ms`;
  try {
    const reply = await fetch(path, { method: method.toUpperCase(), headers, body: text || undefined, signal: controller.signal });
    const retry = reply.headers.get("Retry-After");
    const told = [`${reply.status} ${reply.statusText}`.trim(), passed(), reply.headers.get("X-Request-ID"), retry && word("retryAfter")(retry)];
    line.textContent = told.filter(Boolean).join(" · ");
    line.classList.toggle("failed", !reply.ok);
    if (reply.status === 401) document.getElementById("key-row").hidden = false;
    output.append(shown);
    await showBody(reply, shown);
    line.textContent = line.textContent.replace(/\d+ ms/, passed());
  } catch (error) {
    output.append(element("p", "problem", controller.signal.aborted ? word("stopped") : `${word("lost")} ${error.message}`));
  }
}

async function showBody(reply, shown) {
  const decoder = new TextDecoder();
  const reader = reply.body.getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (text.length < MOST_SHOWN) text += decoder.decode(value, { stream: !done });
    shown.textContent = text;
    if (done) break;
  }
  if (text.length >= MOST_SHOWN) shown.textContent = `${text.slice(0, MOST_SHOWN)} …`;
  else if ((reply.headers.get("Content-Type") || "").includes("json")) {
    shown.textContent = JSON.stringify(JSON.parse(text), null, 2);
    colour(shown, "json");
  }
}

function codeTabs(id, written) {
  const names = Object.keys(LANGUAGES);
  const panel = element("div");
  panel.setAttribute("role", "tabpanel");
  const list = element("div", "tabs");
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", word("code"));
  let chosen = names[0];
  const show = () => {
    for (const tab of list.children) {
      tab.setAttribute("aria-selected", String(tab.textContent === chosen));
      tab.tabIndex = tab.textContent === chosen ? 0 : -1;
    }
    panel.setAttribute("aria-label", chosen);
    panel.replaceChildren(codeBlock(written(chosen), LANGUAGES[chosen]));
  };
  for (const name of names) {
    const tab = textButton(name, () => ((chosen = name), show()), "tab");
    tab.setAttribute("role", "tab");
    list.append(tab);
  }
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    chosen = names[(names.indexOf(chosen) + step + names.length) % names.length];
    show();
    list.querySelector("[aria-selected=true]").focus();
  });
  return { node: element("div", "code-tabs", list, panel), show };
}

function codeBlock(text, language) {
  const code = element("pre", "", text);
  code.tabIndex = 0;
  colour(code, language);
  return element("div", "code-block", code, iconButton("copy", word("copy"), (button) => copy(text, button)));
}

// Colours come when their library has: the text stands there before.
async function colour(node, language) {
  const text = node.textContent;
  if (text.length > MOST_COLOURED) return;
  coloured ||= import("/page/vendor/highlight.js");
  const { default: hljs } = await coloured;
  if (node.textContent === text && hljs.getLanguage(language)) node.innerHTML = hljs.highlight(text, { language }).value;
}
