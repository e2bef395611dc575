// Images, large and small, with the boxes that an answer names drawn on them.
import { $, element, word } from "/page/dom.js";
import { facts } from "/page/images.js";

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 6;

function shape(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

// An image with `boxes` ({box: [x1, y1, x2, y2] in its pixels, label}) on it.
export function figure(image, boxes, name) {
  const img = element("img");
  img.src = image.url;
  img.alt = name;
  const node = element("figure", "image", img);
  if (boxes.length) node.append(drawing(image, boxes));
  return node;
}

function drawing(image, boxes) {
  const svg = shape("svg", { viewBox: `0 0 ${image.width} ${image.height}`, class: "boxes", role: "img" });
  svg.setAttribute("aria-label", boxes.map(({ box, label }) => `${label || ""} ${box.join(", ")}`.trim()).join("; "));
  const size = Math.max(image.width, image.height) / 28;
  boxes.forEach(({ box: [x1, y1, x2, y2], label }, i) => {
    const group = shape("g", { class: `box-${i % COLOURS}` });
    group.append(shape("rect", { x: x1, y: y1, width: Math.max(1, x2 - x1), height: Math.max(1, y2 - y1) }));
    const text = label || String(i + 1);
    const isInside = y1 < 1.4 * size;
    const isFromRight = x1 + text.length * size > image.width && x2 > image.width / 2;
    const [x, anchor] = isFromRight ? [x2 - size / 4, "end"] : [x1 + size / 4, "start"];
    group.append(shape("text", { x, y: isInside ? y1 + size * 1.1 : y1 - size / 3, "font-size": size, "text-anchor": anchor }, text));
    svg.append(group);
  });
  return svg;
}

// A small image that opens large when it is pressed.
export function thumbnail(image, name) {
  const button = element("button", "thumbnail");
  button.type = "button";
  button.title = `${image.name} · ${facts(image)}`;
  button.setAttribute("aria-label", word("enlarge")(name));
  const img = element("img");
  img.src = image.url;
  img.alt = name;
  button.append(img);
  button.addEventListener("click", () => enlarge(image, [], name));
  return button;
}

export function enlarge(image, boxes, name) {
  $("viewer").lastElementChild.replaceChildren(figure(image, boxes, name), element("p", "quiet", `${image.name} · ${facts(image)}`));
  $("viewer").showModal();
}
