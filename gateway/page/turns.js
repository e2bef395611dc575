// How one turn of a chat looks: a question with its images, an answer with its thoughts, calls, boxes and receipt.
import { copy, element, iconButton, textButton, word } from "/page/dom.js";
import { enlarge, figure, thumbnail } from "/page/boxes.js";
import { showMarkdown } from "/page/markdown.js";
import { strip } from "/page/videos.js";

function article(className, who) {
  return element("article", className, element("h2", "hidden", who));
}

// `acts` are what the chat does when a visitor presses edit.
export function questionNode(turn, firstImage, firstVideo, acts) {
  const node = article("you", word("you"));
  if (turn.images.length) {
    const shown = turn.images.map((image, i) => thumbnail(image, word("numbered")(firstImage + i + 1)));
    node.append(element("div", "thumbnails", ...shown));
  }
  (turn.videos || []).forEach((video, i) => node.append(strip(video, firstVideo + i + 1)));
  node.append(element("p", "said", turn.text));
  const edit = iconButton("edit", word("edit"), () => node.replaceWith(editor(turn, node, acts)));
  node.append(element("div", "actions", iconButton("copy", word("copy"), (button) => copy(turn.text, button)), edit));
  return node;
}

function editor(turn, node, acts) {
  const form = element("form", "you editor");
  const text = element("textarea", "", turn.text);
  text.setAttribute("aria-label", word("question"));
  text.rows = Math.min(12, turn.text.split("\n").length + 1);
  const send = element("button", "", word("resend"));
  form.append(text, element("div", "row", element("span", "push"), textButton(word("cancel"), () => form.replaceWith(node)), send));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (text.value.trim()) acts.resend(turn, text.value.trim());
  });
  setTimeout(() => text.focus());
  return form;
}

export function resultNode(turn) {
  const node = article("you", word("tool"));
  node.append(element("p", "quiet", `${turn.name} →`), element("p", "said", turn.text));
  return node;
}

// An answer that can grow: `show` draws the turn as it stands, at most once a frame.
export class AnswerNode {
  constructor(turn, images, acts) {
    this.turn = turn;
    this.images = images;
    this.acts = acts;
    this.isWhole = false;
    this.drawn = "";
    this.node = article("model", word("model"));
    this.thoughts = element("p");
    this.box = element("details", "thoughts", element("summary", "", word("thoughts")), this.thoughts);
    this.said = element("div", "said");
    this.said.append(element("p", "quiet", word("waiting")));
    this.node.append(this.box, this.said);
    this.box.hidden = true;
    this.node.setAttribute("aria-busy", "true");
    this.frame = 0;
    this.then = null;
  }

  // `then` runs once it is drawn.
  show(then) {
    this.then = then;
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const { text, thoughts } = this.turn;
    this.box.hidden = !thoughts;
    if (this.thoughts.textContent !== thoughts) this.thoughts.textContent = thoughts;
    if (text && (text !== this.drawn || this.isWhole)) showMarkdown(this.said, text, this.isWhole);
    this.drawn = text;
    if (this.then) this.then();
  }

  // The end: everything that is known only now.
  finish() {
    this.isWhole = true;
    this.draw();
    const { turn, node } = this;
    node.removeAttribute("aria-busy");
    if (!turn.text) {
      const why = turn.calls.length || turn.stopped ? "" : word(turn.thoughts ? "onlyThoughts" : "noAnswer");
      this.said.replaceChildren(...(why ? [element("p", "quiet", why)] : []));
    }
    this.showBoxes();
    for (const call of turn.calls) node.append(this.callNode(call));
    if (turn.stopped) node.append(element("p", "quiet", word("stopped")));
    if (turn.cut) node.append(element("p", "quiet", word("cut")));
    if (turn.stats) node.append(receipt(turn.stats));
    const actions = [iconButton("copy", word("copy"), (button) => copy(turn.text, button)), iconButton("again", word("again"), () => this.acts.again(turn))];
    if (turn.boxes.length) actions.push(iconButton("boxes", word("boxesJson"), (button) => copy(JSON.stringify(turn.boxes, null, 2), button)));
    node.append(element("div", "actions", ...actions));
  }

  showBoxes() {
    const numbers = [...new Set(this.turn.boxes.map((each) => each.image))].filter((number) => this.images[number]);
    for (const number of numbers) {
      const name = word("numbered")(number + 1);
      const boxes = this.turn.boxes.filter((each) => each.image === number);
      const button = element("button", "boxed", figure(this.images[number], boxes, name));
      button.type = "button";
      button.setAttribute("aria-label", word("enlarge")(name));
      button.addEventListener("click", () => enlarge(this.images[number], boxes, name));
      this.node.append(button);
    }
  }

  callNode(call) {
    const details = element("details", "call", element("summary", "", word("call")(call.function.name)));
    details.open = true;
    details.append(element("pre", "", prettyJson(call.function.arguments)));
    if (this.acts.awaits(this.turn, call)) details.append(this.resultForm(call));
    return details;
  }

  resultForm(call) {
    const form = element("form", "row");
    const field = element("input");
    field.setAttribute("aria-label", word("result"));
    field.placeholder = word("result");
    form.append(field, element("button", "plain", word("sendResult")));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.acts.result(call, field.value)) return;
      form.remove();
      const next = this.node.querySelector(".call form input");
      if (next) next.focus();
    });
    return form;
  }
}

function prettyJson(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

const seconds = (ms) => (ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms)} ms`);

// `stats` has the usage, and milliseconds by the visitor's own clock from the click to the first piece and to the end.
function receipt({ usage, firstMs, totalMs }) {
  const rate = (1000 * usage.completion_tokens) / Math.max(1, totalMs);
  const counts = { ...usage, image_tokens: (usage.prompt_tokens_details || {}).image_tokens || 0 };
  const told = { first: seconds(firstMs), total: seconds(totalMs), rate: rate < 10 ? rate.toFixed(1) : Math.round(rate) };
  const node = element("p", "stats quiet", word("stats")(counts, told));
  node.title = word("statsHint");
  return node;
}
