// Small helpers that every part of the page uses: elements, icons, words in the chosen language, and notices.
import { WORDS } from "/page/words.js";

export const $ = (id) => document.getElementById(id);
let language = "en";

export const word = (name) => WORDS[language][name];
export const spoken = () => language;

export function element(tag, className, ...content) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...content.filter((each) => each !== undefined && each !== null));
  return node;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

// A button with an icon, whose name in words is its label; `act` runs when it is pressed.
export function iconButton(name, label, act) {
  const button = element("button", "icon small", icon(name));
  button.type = "button";
  button.title = label;
  button.setAttribute("aria-label", label);
  button.addEventListener("click", () => act(button));
  return button;
}

export function textButton(text, act, className = "plain") {
  const button = element("button", className, text);
  button.type = "button";
  button.addEventListener("click", () => act(button));
  return button;
}

export function speak(chosen) {
  language = chosen === "zh" ? "zh" : "en";
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = word(node.dataset.word);
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = word(node.dataset.placeholder);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", word(node.dataset.label));
  for (const node of document.querySelectorAll("button[data-label]")) node.title = word(node.dataset.label);
  $("language").textContent = language === "zh" ? "English" : "中文";
  $("language").lang = language === "zh" ? "en" : "zh-CN";
  remember("language", language);
}

// Choices that outlive the page, where the browser lets a page keep any.
export function remember(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    return false;
  }
  return true;
}

export function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

// Light or dark, as the visitor's system has it until they choose.
export function wireTheme() {
  const root = document.documentElement.dataset;
  const chosen = remembered("theme");
  if (chosen) root.theme = chosen;
  $("theme").addEventListener("click", () => {
    const isDark = root.theme ? root.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.theme = isDark ? "light" : "dark";
    remember("theme", root.theme);
  });
}

let toastTimer = 0;
export function notice(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => ($("toast").hidden = true), 4000);
}

export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Pages that came over plain HTTP from another machine have no clipboard: the old way still works there.
    const area = element("textarea", "hidden", text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  notice(word("copied"));
  button.focus();
}

export function download(name, type, text) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
