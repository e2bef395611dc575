// An answer's markdown as safe HTML: marked reads it, DOMPurify takes out what could act, highlight.js colours code.
import DOMPurify from "/page/vendor/purify.js";
import hljs from "/page/vendor/highlight.js";
import { Marked } from "/page/vendor/marked.js";
import { copy, element, iconButton, word } from "/page/dom.js";

const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
// HTML that a model writes is shown as it stands: nobody asked for a page.
const marked = new Marked({ gfm: true, breaks: true, renderer: { html: (token) => escaped(token.text) } });
const RULES = { FORBID_TAGS: ["img", "style", "form", "svg", "math", "video", "audio"], FORBID_ATTR: ["style", "id", "name"] };

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

// Fills `target` with the text; `isWhole` when nothing will be added, which is when code is coloured.
export function showMarkdown(target, text, isWhole) {
  target.replaceChildren(DOMPurify.sanitize(marked.parse(text), { ...RULES, RETURN_DOM_FRAGMENT: true }));
  for (const table of target.querySelectorAll("table")) {
    const frame = element("div", "wide");
    frame.tabIndex = 0;
    table.replaceWith(frame);
    frame.append(table);
  }
  if (isWhole) for (const code of target.querySelectorAll("pre > code")) finishCode(code);
}

function finishCode(code) {
  const language = (code.className.match(/language-([\w+#-]+)/) || [])[1];
  const text = code.textContent;
  if (language && hljs.getLanguage(language)) code.innerHTML = hljs.highlight(text, { language }).value;
  const block = code.parentElement;
  block.tabIndex = 0;
  const frame = element("div", "code-block", element("div", "row", element("span", "quiet", language || "")));
  block.replaceWith(frame);
  frame.firstChild.append(element("span", "push"), iconButton("copy", word("copy"), (button) => copy(text.replace(/\n$/, ""), button)));
  frame.append(block);
}
