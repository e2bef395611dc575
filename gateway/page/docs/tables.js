// What an address takes and answers, as tables made from the OpenAPI document.
import { element, word } from "/page/dom.js";
import { said } from "/page/docs/words.js";

const PART = "#/components/schemas/";

export const anchor = (method, path) => method + path.replace(/[^a-z0-9_]+/g, "-").replace(/-$/, "");
export const contentOf = (part) => part && part.content["application/json"];
export const nameOf = (content) => content.schema.$ref.slice(PART.length);

function linkTo(name) {
  const link = element("a", "", name);
  link.href = `#${name}`;
  return link;
}

// The type of a field in words, in which parts are links.
export function kind(schema) {
  if (schema.$ref) return [linkTo(schema.$ref.slice(PART.length))];
  if (schema.anyOf) {
    const kinds = schema.anyOf.filter((each) => each.type !== "null").map(kind);
    return kinds.flatMap((each, i) => (i ? [word("or"), ...each] : each));
  }
  if (schema.type === "array") return word("listOf")(schema.items ? kind(schema.items) : [word("anything")]);
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(word("or"))];
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  return [[schema.type || word("anything")].flat().join(word("or"))];
}

// A column in which no row has anything is left away.
function table(allHeads, allRows, className) {
  const isUsed = allHeads.map((_, i) => allRows.some((row) => row[i] !== ""));
  const used = (cells) => cells.filter((_, i) => isUsed[i]);
  const [heads, rows] = [used(allHeads), allRows.map(used)];
  const node = element("table", className);
  const head = node.createTHead().insertRow();
  for (const text of heads) head.append(element("th", "", text));
  const body = node.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((content, i) => {
      const cell = line.insertCell();
      cell.append(...[i === 0 ? element("code", "", content) : content].flat());
      cell.dataset.head = heads[i];
    });
  }
  return node;
}

// What stands for a field that is left out: a default, nothing, or another field of a choice that must be made.
function leftOut(schema, name) {
  if ((schema.required || []).includes(name)) return word("required");
  const choices = (schema.allOf || []).map((choice) => choice.anyOf.map((each) => each.required[0]));
  const [, ...others] = choices.find(([first]) => first === name) || [];
  if (others.length) return word("requiredOr")(others.join(word("or")));
  const { default: value } = schema.properties[name];
  return value === undefined ? word("none") : JSON.stringify(value);
}

const rows = (schema, third) =>
  Object.entries(schema.properties).map(([name, field]) => [name, kind(field), third(name), said(field.description || "")]);

export function taken(schema) {
  return table([word("field"), word("type"), word("ifLeftOut"), word("meaning")], rows(schema, (name) => leftOut(schema, name)), "fields");
}

export function given(schema) {
  const isSure = (name) => ((schema.required || []).includes(name) ? word("always") : word("atTimes"));
  return table([word("field"), word("type"), word("there"), word("meaning")], rows(schema, isSure), "fields");
}

export function parameters(found) {
  const lines = found.map((each) => [each.name, word(each.in), said(each.description || "") || each.schema.type]);
  return table([word("parameter"), word("where"), word("meaning")], lines);
}

export function statuses(responses) {
  const body = (reply) => (contentOf(reply) ? [linkTo(nameOf(contentOf(reply)))] : Object.keys(reply.content).join(", "));
  const lines = Object.entries(responses).map(([code, reply]) => [code, said(reply.description), body(reply)]);
  return table([word("status"), word("when"), word("body")], lines);
}

// The names of the parts that are answers, whose fields are given rather than taken.
export function answers(api) {
  const operations = Object.values(api.paths).flatMap((methods) => Object.values(methods));
  const replies = operations.flatMap((each) => Object.values(each.responses)).filter(contentOf);
  return new Set([...replies.map((reply) => nameOf(contentOf(reply))), "Model"]);
}
