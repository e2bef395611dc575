// Videos of a question: read as they are, and shown as the frames that the model was shown of them.
import { element, icon, word } from "/page/dom.js";
import { enlarge } from "/page/boxes.js";
import { dataUrl } from "/page/images.js";
import { told } from "/page/service.js";

const LARGEST_FILE_BYTES = 11 << 20; // what fits into a request of 16 MB as base64
const NAMED = /\.(mp4|m4v|mov|webm|mkv)$/i;

export const isVideo = (file) => file.type.startsWith("video/") || NAMED.test(file.name || "");

// {url, name, bytes, frames}; raises an error whose `told` is a sentence for the visitor.
export async function videoOf(file) {
  const name = file.name || word("video");
  if (file.size > LARGEST_FILE_BYTES) throw told(word("videoTooLarge")(name, LARGEST_FILE_BYTES >> 20));
  const url = await dataUrl(file);
  return { url: url.slice(url.indexOf(",") + 1), name, bytes: file.size, frames: [] };
}

export const videosOf = (turns) => turns.flatMap((turn) => turn.videos || []);

// What stands for a video before its frames are known.
export function film(video) {
  const node = element("span", "film", icon("film"), element("span", "", video.name));
  node.title = `${video.name} · ${Math.ceil(video.bytes / 1024)} kB`;
  return node;
}

// The frames in a row, each with its time, under the video's name; the row scrolls by itself.
export function strip(video, number) {
  const name = word("numberedVideo")(number);
  if (!video.frames.length) return film(video);
  const title = element("p", "quiet", word("framesOf")(video.name, video.frames.length));
  const row = element("div", "strip", ...video.frames.map((frame) => frameNode(frame, video, name)));
  row.tabIndex = 0;
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", name);
  return element("div", "video", title, row);
}

function frameNode({ second, url }, video, name) {
  const at = `${second.toFixed(1)} s`;
  const button = element("button", "thumbnail frame");
  button.type = "button";
  button.setAttribute("aria-label", word("enlarge")(`${name}, ${at}`));
  const img = element("img");
  img.src = url;
  img.alt = `${name}, ${at}`;
  button.append(img, element("span", "second", at));
  button.addEventListener("click", () => {
    const [width, height] = [img.naturalWidth, img.naturalHeight];
    enlarge({ url, width, height, name: `${video.name} · ${at}`, bytes: Math.round((url.length * 3) / 4) }, [], `${name}, ${at}`);
  });
  return button;
}
