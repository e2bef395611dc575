// Renders /openapi.json: each address, what it takes, and what it answers.
"use strict";

function element(tag, text, className) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(kind).filter((name) => name !== "null").join(" or ");
  if (schema.type === "array") return `list of ${schema.items ? kind(schema.items) : "anything"}`;
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  return schema.type || "anything";
}

function table(heads, rows) {
  const node = element("table");
  const head = node.createTHead().insertRow();
  for (const text of heads) head.append(element("th", text));
  const body = node.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((text, i) => line.insertCell().append(i === 0 ? element("code", text) : text));
  }
  return node;
}

function fields(schema) {
  const required = schema.required || [];
  return Object.entries(schema.properties || {}).map(([name, field]) => [name, kind(field), required.includes(name) ? "required" : "", field.description || ""]);
}

function operation(target, path, method, found, schemas) {
  const title = element("h2");
  title.append(element("span", method.toUpperCase(), "method"), " ", element("code", path));
  target.append(title, element("p", found.summary));
  const content = found.requestBody && found.requestBody.content["application/json"];
  if (content) target.append(table(["field", "type", "", "must be"], fields(schemas[kind(content.schema)])));
  target.append(table(["answer", "when"], Object.entries(found.responses).map(([code, reply]) => [code, reply.description])));
}

fetch("/openapi.json").then((reply) => reply.json()).then((api) => {
  const target = document.getElementById("document");
  target.append(element("p", api.info.description));
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, found] of Object.entries(methods)) operation(target, path, method, found, api.components.schemas);
  target.append(element("h2", "Parts"));
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    if (!schema.properties) continue;
    target.append(element("h2", name), table(["field", "type", "", "must be"], fields(schema)));
  }
});
