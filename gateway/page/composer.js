// The question being written: its text, and the images and videos that go with it.
import { $, element, iconButton, word } from "/page/dom.js";
import { thumbnail } from "/page/boxes.js";
import { filesOf, imageOf } from "/page/images.js";
import { film, isVideo, videoOf } from "/page/videos.js";

let attached = [];
let whenChanged = () => null;

const isFilm = (each) => Boolean(each.frames);
export const composed = () => ({
  text: $("question").value.trim(),
  images: attached.filter((each) => !isFilm(each)),
  videos: attached.filter(isFilm),
});

export function clearComposer() {
  $("question").value = "";
  attached = [];
  show();
}

// Gives a question back that was not answered, unless the visitor has begun another.
export function giveBack({ text, images, videos }) {
  if ($("question").value || attached.length) return;
  $("question").value = text;
  attached = [...images, ...(videos || [])];
  show();
}

export function show() {
  $("attached").hidden = attached.length === 0;
  $("attached").replaceChildren(...attached.map((each, i) => {
    const before = attached.slice(0, i).filter((other) => isFilm(other) === isFilm(each)).length;
    const name = word(isFilm(each) ? "numberedVideo" : "numbered")(before + 1);
    const remove = iconButton("close", word("detach")(name), () => {
      attached.splice(i, 1);
      show();
      $("question").focus();
    });
    return element("li", "", isFilm(each) ? film(each) : thumbnail(each, name), remove);
  }));
  grow();
  whenChanged(attached);
}

function grow() {
  const area = $("question");
  area.rows = Math.min(8, Math.max(1, area.value.split("\n").length));
}

export async function attach(files, complain) {
  for (const file of files) {
    try {
      attached.push(await (isVideo(file) ? videoOf(file) : imageOf(file)));
    } catch (error) {
      complain(error.told || word("lost"));
    }
  }
  show();
  $("question").focus();
}

export function wireComposer(changed, complain) {
  whenChanged = changed;
  for (const [button, input] of [["attach", "file"], ["shoot", "camera"]]) {
    $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", async () => {
      const files = [...$(input).files];
      $(input).value = ""; // so that the same file can be chosen again
      await attach(files, complain);
    });
  }
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dragging"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    attach(filesOf(event.dataTransfer), complain);
  });
  document.addEventListener("paste", (event) => {
    const files = filesOf(event.clipboardData).filter((file) => file.type.startsWith("image/") || isVideo(file));
    if (files.length) attach(files, complain);
  });
  $("question").addEventListener("input", grow);
  $("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("ask").requestSubmit();
  });
  $("key").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    $("ask").requestSubmit();
  });
}
