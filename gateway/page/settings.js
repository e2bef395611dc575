// What a visitor sets for every question: kept in this browser, and sent only where it differs from the service's defaults.
import { $, remember, remembered, word } from "/page/dom.js";

const FIELDS = ["system", "temperature", "max_tokens", "schema", "tools"];
const form = () => $("settings").querySelector("form");
let saved = {};

export function readSettings() {
  try {
    saved = JSON.parse(remembered("settings")) || {};
  } catch {
    saved = {};
  }
}

export const systemPrompt = () => (saved.system || "").trim();

// The request's fields that the settings make.
export function settingsFields() {
  const fields = {};
  if (saved.temperature) fields.temperature = Number(saved.temperature);
  if (saved.max_tokens) fields.max_tokens = Number(saved.max_tokens);
  if (saved.schema) fields.response_format = { type: "json_schema", json_schema: { name: "answer", schema: JSON.parse(saved.schema) } };
  if (saved.tools) fields.tools = JSON.parse(saved.tools);
  return fields;
}

export const setsJson = () => Boolean(saved.schema);
export const setsTools = () => Boolean(saved.tools);

function mistake(name, isRight) {
  const text = form().elements[name].value.trim();
  if (!text) return false;
  try {
    return !isRight(JSON.parse(text));
  } catch {
    return true;
  }
}

function complain(name, text) {
  const problem = form().querySelector(".problem");
  problem.textContent = text;
  problem.hidden = !text;
  for (const each of FIELDS) form().elements[each].setAttribute("aria-invalid", String(each === name));
  if (name) form().elements[name].focus();
}

export function wireSettings(whenSaved) {
  const { elements } = form();
  $("open-settings").addEventListener("click", () => {
    for (const name of FIELDS) elements[name].value = saved[name] || "";
    complain(null, "");
    $("settings").showModal();
  });
  form().addEventListener("submit", (event) => {
    event.preventDefault();
    if (mistake("schema", (value) => value && typeof value === "object" && !Array.isArray(value))) return complain("schema", word("badSchema"));
    if (mistake("tools", Array.isArray)) return complain("tools", word("badTools"));
    saved = Object.fromEntries(FIELDS.map((name) => [name, elements[name].value.trim()]).filter(([, value]) => value));
    remember("settings", JSON.stringify(saved));
    $("settings").close();
    whenSaved();
  });
  elements.reset.addEventListener("click", () => {
    for (const name of FIELDS) elements[name].value = "";
  });
  elements.cancel.addEventListener("click", () => $("settings").close());
}
