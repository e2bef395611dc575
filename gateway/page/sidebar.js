// The list of chats, and how they leave the browser: deleted, or saved as files.
import { $, download, element, iconButton, word } from "/page/dom.js";
import { chats, forget, forgetAll } from "/page/store.js";

const isNarrow = () => matchMedia("(max-width: 60rem)").matches;

export function showSidebar(isShown) {
  document.body.classList.toggle("with-sidebar", isShown);
  $("sidebar").inert = !isShown;
  $("menu").setAttribute("aria-expanded", String(isShown));
}

export function listChats(openId, acts) {
  const rows = chats().map((chat) => {
    const open = element("button", "plain", chat.title || word("untitled"));
    open.type = "button";
    if (chat.id === openId) open.setAttribute("aria-current", "page");
    open.addEventListener("click", () => {
      acts.open(chat);
      if (isNarrow()) showSidebar(false);
    });
    const remove = iconButton("delete", `${word("remove")}: ${chat.title || word("untitled")}`, async () => {
      if (!confirm(word("sureOne"))) return;
      await forget(chat.id);
      acts.gone(chat.id);
    });
    return element("li", "", open, remove);
  });
  $("chats").replaceChildren(...rows);
  $("no-chats").hidden = rows.length > 0;
  for (const id of ["export-json", "export-markdown", "delete-all"]) $(id).disabled = rows.length === 0;
}

// A chat as markdown; its images as data URLs, so that the file is whole.
export function asMarkdown(chat) {
  const lines = [`# ${chat.title || word("untitled")}`];
  for (const turn of chat.turns) {
    const who = turn.role === "user" ? word("you") : turn.role === "tool" ? `${word("tool")}: ${turn.name}` : word("model");
    lines.push(`## ${who}`);
    for (const image of turn.images || []) lines.push(`![${image.name}](${image.url})`);
    for (const video of turn.videos || []) {
      lines.push(...video.frames.map((frame) => `![${video.name}, ${frame.second} s](${frame.url})`));
    }
    if (turn.thoughts) lines.push(turn.thoughts.replace(/^/gm, "> "));
    if (turn.text) lines.push(turn.text);
    for (const call of turn.calls || []) lines.push("```json\n" + JSON.stringify(call.function, null, 2) + "\n```");
  }
  return `${lines.join("\n\n")}\n`;
}

export function wireSidebar(acts) {
  showSidebar(!isNarrow());
  $("menu").addEventListener("click", () => {
    showSidebar(!document.body.classList.contains("with-sidebar"));
    if (document.body.classList.contains("with-sidebar")) $("new").focus();
  });
  $("hide").addEventListener("click", () => {
    showSidebar(false);
    $("menu").focus();
  });
  // On a narrow page the list covers the chat: a press beside it, or Escape, puts it away.
  $("main").addEventListener("click", (event) => {
    if (isNarrow() && !event.target.closest("#menu")) showSidebar(false);
  });
  $("sidebar").addEventListener("keydown", (event) => {
    if (event.key === "Escape" && isNarrow()) $("hide").click();
  });
  $("new").addEventListener("click", () => {
    if (isNarrow()) showSidebar(false);
    acts.fresh();
  });
  $("export-json").addEventListener("click", () => download("chats.json", "application/json", JSON.stringify(chats(), null, 2)));
  $("export-markdown").addEventListener("click", () => download("chats.md", "text/markdown", chats().map(asMarkdown).join("\n")));
  $("delete-all").addEventListener("click", async () => {
    if (!confirm(word("sureAll"))) return;
    await forgetAll();
    acts.gone(null);
  });
}
