// Renders /openapi.json: each address with what it takes, an example, and what it answers.
"use strict";
const PART = "#/components/schemas/";

function element(tag, content, className) {
  const node = document.createElement(tag);
  if (content !== undefined) node.append(...[content].flat());
  if (className) node.className = className;
  return node;
}

function linkTo(ref) {
  const name = ref.slice(PART.length);
  const link = element("a", name);
  link.href = `#${name}`;
  return link;
}

// The type of a field in words, in which parts are links.
function kind(schema) {
  if (schema.$ref) return [linkTo(schema.$ref)];
  if (schema.anyOf) {
    const kinds = schema.anyOf.filter((each) => each.type !== "null").map(kind);
    return kinds.flatMap((each, i) => (i ? [" or ", ...each] : each));
  }
  if (schema.type === "array") return ["list of ", ...(schema.items ? kind(schema.items) : ["anything"])];
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" or ")];
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  return [[schema.type || "anything"].flat().join(" or ")];
}

// A column in which no row has anything is left away.
function table(allHeads, allRows) {
  const isUsed = allHeads.map((_, i) => allRows.some((row) => row[i] !== ""));
  const used = (cells) => cells.filter((_, i) => isUsed[i]);
  const [heads, rows] = [used(allHeads), allRows.map(used)];
  const node = element("table");
  const head = node.createTHead().insertRow();
  for (const text of heads) head.append(element("th", text));
  const body = node.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((content, i) => {
      const cell = line.insertCell();
      cell.append(...[i === 0 ? element("code", content) : content].flat());
      cell.dataset.head = heads[i];
    });
  }
  return node;
}

// What stands for a field that is left out: a default, nothing, or another field of a choice that must be made.
function leftOut(schema, name) {
  if ((schema.required || []).includes(name)) return "required";
  const choices = (schema.allOf || []).map((choice) => choice.anyOf.map((each) => each.required[0]));
  const [, ...others] = choices.find(([first]) => first === name) || [];
  if (others.length) return `required, or ${others.join(" or ")}`;
  const { default: value } = schema.properties[name];
  return value === undefined ? "none" : JSON.stringify(value);
}

function taken(schema) {
  const rows = Object.entries(schema.properties).map(([name, field]) => [name, kind(field), leftOut(schema, name), field.description || ""]);
  return table(["field", "type", "if left out", "meaning"], rows);
}

function given(schema) {
  const isSure = (name) => ((schema.required || []).includes(name) ? "always" : "at times");
  const rows = Object.entries(schema.properties).map(([name, field]) => [name, kind(field), isSure(name), field.description || ""]);
  return table(["field", "type", "there", "meaning"], rows);
}

function example(title, value) {
  return [element("h3", title), element("pre", JSON.stringify(value, null, 2))];
}

function operation(target, path, method, found, schemas) {
  const title = element("h2", [element("span", method.toUpperCase(), "method"), " ", element("code", path)]);
  target.append(title, element("p", found.summary));
  const body = found.requestBody;
  const content = body && body.content["application/json"];
  if (content) target.append(taken(schemas[content.schema.$ref.slice(PART.length)]));
  if (body && body.description) target.append(element("p", body.description));
  if (found.parameters) {
    const rows = found.parameters.map((each) => [each.name, `in the ${each.in}`, each.description || each.schema.type]);
    target.append(table(["parameter", "where", "meaning"], rows));
  }
  if (content && content.example) target.append(...example("A request", content.example));
  const good = found.responses["200"].content["application/json"];
  if (good && good.example) target.append(...example("Its answer", good.example));
  target.append(table(["status", "when", "body"], Object.entries(found.responses).map(([code, reply]) => [code, reply.description, answered(reply)])));
}

function answered(reply) {
  const json = reply.content["application/json"];
  return json ? [linkTo(json.schema.$ref)] : Object.keys(reply.content).join(", ");
}

function bodies(api) {
  const operations = Object.values(api.paths).flatMap((methods) => Object.values(methods));
  const refs = operations.filter((each) => each.requestBody).map((each) => each.requestBody.content["application/json"].schema.$ref);
  return refs.map((ref) => ref.slice(PART.length));
}

function parts(target, api) {
  const answers = Object.values(api.paths).flatMap((methods) => Object.values(methods)).flatMap((each) => Object.values(each.responses));
  const isAnswer = new Set(answers.map((reply) => reply.content["application/json"]).filter(Boolean).map((json) => json.schema.$ref.slice(PART.length)));
  isAnswer.add("Model");
  const shown = bodies(api);
  target.append(element("h2", "Parts"));
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    if (shown.includes(name) || !schema.properties) continue;
    const title = element("h3", element("code", name));
    title.id = name;
    target.append(title);
    if (schema.description) target.append(element("p", schema.description));
    target.append(isAnswer.has(name) ? given(schema) : taken(schema));
  }
}

fetch("/openapi.json").then((reply) => reply.json()).then((api) => {
  const target = document.getElementById("document");
  target.append(element("p", api.info.description));
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, found] of Object.entries(methods)) operation(target, path, method, found, api.components.schemas);
  parts(target, api);
});
