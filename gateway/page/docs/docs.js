// The page of the API: each address of /openapi.json with its fields, code that asks it, and a place to try it.
import { $, element, remembered, speak, spoken, wireTheme, word } from "/page/dom.js";
import { answers, anchor, contentOf, kind, nameOf, parameters, statuses, taken, given } from "/page/docs/tables.js";
import { workbench } from "/page/docs/tryout.js";
import { learnChinese, said } from "/page/docs/words.js";

let api = null;
const service = { needsKey: false, model: "" };
const bodies = new Map(); // the heading under which each body's fields stand
const typed = new Map(); // what a visitor has typed, by address, outlives a change of language

function eachOperation(act) {
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, found] of Object.entries(methods)) act(path, method, found);
}

// A body's fields, or a link to the address where they stood already.
function fields(name, title) {
  if (!bodies.has(name)) {
    bodies.set(name, title);
    return taken(api.components.schemas[name]);
  }
  const link = element("a", "", bodies.get(name).textContent);
  link.href = `#${bodies.get(name).id}`;
  return element("p", "", ...word("sameFields")(link));
}

function section(path, method, found) {
  const node = element("section", "operation");
  const title = element("h2", "", element("span", `method ${method}`, method.toUpperCase()), " ", element("code", "", path));
  title.id = anchor(method, path);
  const told = element("div", "told");
  const body = found.requestBody;
  const content = contentOf(body);
  if (content) told.append(fields(nameOf(content), title));
  if (body && body.description) told.append(element("p", "", said(body.description)));
  if (found.parameters) told.append(parameters(found.parameters));
  told.append(statuses(found.responses));
  node.append(element("div", "head", title, element("p", "", said(found.summary))), told, workbench({ path, method, found, service, typed }));
  return node;
}

function parts() {
  const isAnswer = answers(api);
  const nodes = [element("h2", "", word("parts"))];
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    if (bodies.has(name)) continue;
    const title = element("h3", "", element("code", "", name));
    title.id = name;
    nodes.push(title);
    if (schema.description) nodes.push(element("p", "", said(schema.description)));
    if (!schema.properties) nodes.push(element("p", "", ...kind(schema)));
    else nodes.push(isAnswer.has(name) ? given(schema) : taken(schema));
  }
  return nodes;
}

function render() {
  document.title = word("api");
  $("about").textContent = said(api.info.description);
  $("operations").replaceChildren();
  bodies.clear();
  $("addresses").replaceChildren();
  eachOperation((path, method, found) => {
    $("operations").append(section(path, method, found));
    const link = element("a", "", element("span", `method ${method}`, method.toUpperCase()), " ", path);
    link.href = `#${anchor(method, path)}`;
    $("addresses").append(link);
  });
  $("parts").replaceChildren(...parts());
}

// A key that was typed once is kept for this tab, as the chat does.
function wireKey() {
  $("key-row").addEventListener("submit", (event) => event.preventDefault());
  $("key").value = sessionStorage.getItem("key") || "";
  $("key").addEventListener("input", () => {
    if ($("key").value) sessionStorage.setItem("key", $("key").value);
    else sessionStorage.removeItem("key");
  });
}

async function learnService() {
  service.model = api.info.title.replace(/ on Triton$/, "");
  const reply = await fetch("/v1/models").catch(() => null);
  service.needsKey = Boolean(reply && reply.status === 401);
  $("key-row").hidden = !service.needsKey;
}

async function speakIn(language) {
  if (language === "zh") await learnChinese();
  speak(language);
  if (api) render();
}

async function begin() {
  wireTheme();
  wireKey();
  $("language").addEventListener("click", () => speakIn(spoken() === "zh" ? "en" : "zh"));
  api = await fetch("/openapi.json").then((reply) => reply.json());
  await learnService();
  await speakIn(remembered("language") || (navigator.language.startsWith("zh") ? "zh" : "en"));
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

begin();
