// Files become images of a question: read, and made smaller where they are larger than any model looks at.
import { told } from "/page/service.js";
import { word } from "/page/dom.js";

const LARGEST_SIDE_PX = 4096;
const LARGEST_FILE_BYTES = 4 << 20;

// {url, width, height, name, bytes}; raises an error whose `told` is a sentence for the visitor.
export async function imageOf(file) {
  const name = file.name || word("image");
  if (!file.type.startsWith("image/")) throw told(word("notImage")(name));
  const shown = new Image();
  const url = URL.createObjectURL(file);
  try {
    shown.src = url;
    await shown.decode();
    const [width, height] = [shown.naturalWidth, shown.naturalHeight];
    const isLarge = Math.max(width, height) > LARGEST_SIDE_PX || file.size > LARGEST_FILE_BYTES;
    if (!isLarge || file.type === "image/svg+xml") return { url: await dataUrl(file), width, height, name, bytes: file.size };
    return smaller(shown, width, height, name);
  } catch (error) {
    throw error.told ? error : told(word("broken")(name));
  } finally {
    URL.revokeObjectURL(url);
  }
}

export function dataUrl(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
}

function smaller(shown, fullWidth, fullHeight, name) {
  const scale = Math.min(1, LARGEST_SIDE_PX / Math.max(fullWidth, fullHeight));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.round(fullWidth * scale), Math.round(fullHeight * scale)];
  const pen = canvas.getContext("2d");
  pen.fillStyle = "white"; // JPEG knows no transparency
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(shown, 0, 0, canvas.width, canvas.height);
  const url = canvas.toDataURL("image/jpeg", 0.92);
  return { url, width: canvas.width, height: canvas.height, name, bytes: Math.round((url.length * 3) / 4) };
}

export const filesOf = (transfer) => [...(transfer ? transfer.files : [])];

export const facts = (image) => `${image.width} × ${image.height} · ${Math.ceil(image.bytes / 1024)} kB`;
