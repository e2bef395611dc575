// Chats in the browser's own database (images are too large for localStorage); in memory where there is none.
const NAME = "glm-chats";
const held = new Map();
let database = null;

function request(asked) {
  return new Promise((done, failed) => {
    asked.onsuccess = () => done(asked.result);
    asked.onerror = () => failed(asked.error);
  });
}

export async function openStore() {
  try {
    const opening = indexedDB.open(NAME, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("chats", { keyPath: "id" });
    database = await request(opening);
    for (const chat of await request(table("readonly").getAll())) held.set(chat.id, chat);
  } catch {
    database = null;
  }
}

const table = (mode) => database.transaction("chats", mode).objectStore("chats");

export const chats = () => [...held.values()].sort((one, other) => other.updated - one.updated);

export const newChat = () => ({ id: `${Date.now()}-${Math.random().toString(36).slice(2)}`, title: "", updated: Date.now(), turns: [] });

// Keeps a chat; false when the browser has no room for it, in which case it lasts as long as the page.
export async function keep(chat) {
  held.set(chat.id, chat);
  if (!database) return true;
  try {
    await request(table("readwrite").put(chat));
    return true;
  } catch {
    return false;
  }
}

export async function forget(id) {
  held.delete(id);
  if (database) await request(table("readwrite").delete(id)).catch(() => null);
}

export async function forgetAll() {
  held.clear();
  if (database) await request(table("readwrite").clear()).catch(() => null);
}
