// Code that asks an address: curl, Python and JavaScript, made from the body that stands in the editor.
const SHORT = 88; // letters in which a value stays on one line

// Which official client speaks to an address, by which call, how its answer's text is read, and the fields that call names.
const SAMPLED = ["model", "max_tokens", "temperature", "top_p", "stream", "seed", "stop"];
const CLIENTS = {
  "/v1/chat/completions": { library: "openai", call: "chat.completions.create", text: ["choices", 0, "message", "content"], fields: [...SAMPLED, "messages", "tools", "tool_choice", "response_format", "n", "logprobs", "top_logprobs", "stream_options", "reasoning_effort", "frequency_penalty", "presence_penalty", "logit_bias"] },
  "/v1/completions": { library: "openai", call: "completions.create", text: ["choices", 0, "text"], fields: [...SAMPLED, "prompt", "n", "echo", "logprobs", "suffix", "logit_bias"] },
  "/v1/responses": { library: "openai", call: "responses.create", text: ["output_text"], fields: ["model", "input", "instructions", "max_output_tokens", "temperature", "top_p", "stream", "tools", "tool_choice", "text", "reasoning", "metadata"] },
  "/v1/messages": { library: "anthropic", call: "messages.create", text: ["content", 0, "text"], fields: ["model", "messages", "system", "max_tokens", "temperature", "top_p", "top_k", "stream", "tools", "tool_choice", "stop_sequences", "thinking"] },
  "/v1/messages/count_tokens": { library: "anthropic", call: "messages.count_tokens", text: ["input_tokens"], fields: ["model", "messages", "system", "tools"] },
};
const CLASSES = { openai: "OpenAI", anthropic: "Anthropic" };

export const LANGUAGES = { curl: "bash", Python: "python", JavaScript: "javascript" };

// `asked` is { path, method, body, origin, model, needsKey }; path has its parameters filled in.
export function sample(language, asked) {
  if (language === "curl") return curl(asked);
  const client = CLIENTS[asked.path];
  const body = client && !("model" in asked.body) ? { model: asked.model, ...asked.body } : asked.body;
  const isPython = language === "Python";
  if (client) return isPython ? pythonClient(client, { ...asked, body }) : scriptClient(client, { ...asked, body });
  return isPython ? python(asked) : script(asked);
}

function curl({ path, method, body, origin, needsKey }) {
  const quoted = (text) => `'${text.replace(/'/g, `'\\''`)}'`;
  const lines = [`curl ${body && body.stream ? "-N " : ""}${origin}${path}`];
  if (method === "post" && !body) lines[0] += " -X POST";
  if (needsKey) lines.push(`-H "Authorization: Bearer $API_KEY"`);
  if (body) lines.push(`-H 'Content-Type: application/json'`, `-d ${quoted(JSON.stringify(body, null, 2))}`);
  return lines.join(" \\\n  ");
}

function python({ path, method, body, origin, needsKey }) {
  const given = [`"${origin}${path}"`];
  if (needsKey) given.push(`headers={"Authorization": f"Bearer {os.environ['API_KEY']}"}`);
  if (body) given.push(`json=${literal(body, "    ")}`);
  if (body && body.stream) given.push("stream=True");
  const imports = `${needsKey ? "import os\n\n" : ""}import requests\n\n`;
  const shown = body && body.stream ? "for line in reply.iter_lines():\n    print(line.decode())" : "print(reply.status_code, reply.text)";
  return `${imports}reply = requests.${method}(\n    ${given.join(",\n    ")},\n)\n${shown}\n`;
}

function pythonClient({ library, call, text, fields }, { body, origin, needsKey }) {
  const [known, others] = [{}, {}];
  for (const [name, value] of Object.entries(body)) (fields.includes(name) ? known : others)[name] = value;
  const given = Object.entries(known).map(([name, value]) => `${name}=${literal(value, "    ")}`);
  if (Object.keys(others).length) given.push(`extra_body=${literal(others, "    ")}`);
  const key = needsKey ? 'os.environ["API_KEY"]' : '"none"';
  const base = library === "openai" ? `${origin}/v1` : origin;
  const read = text.map((step) => (typeof step === "number" ? `[${step}]` : `.${step}`)).join("");
  const shown = body.stream ? "for event in answer:\n    print(event)" : `print(answer${read})`;
  return (
    `${needsKey ? "import os\n\n" : ""}from ${library} import ${CLASSES[library]}\n\n` +
    `client = ${CLASSES[library]}(base_url="${base}", api_key=${key})\n` +
    `answer = client.${call}(\n    ${given.join(",\n    ")},\n)\n${shown}\n`
  );
}

function script({ path, method, body, origin, needsKey }) {
  const headers = [needsKey && "Authorization: `Bearer ${process.env.API_KEY}`", body && '"Content-Type": "application/json"'].filter(Boolean);
  const given = [method === "post" && `method: "POST"`, headers.length && `headers: { ${headers.join(", ")} }`];
  if (body) given.push(`body: JSON.stringify(${indented(body, "  ")})`);
  const options = given.filter(Boolean);
  const told = options.length ? `, {\n  ${options.join(",\n  ")},\n}` : "";
  const shown = body && body.stream
    ? "for await (const piece of reply.body.pipeThrough(new TextDecoderStream())) process.stdout.write(piece);"
    : "console.log(reply.status, await reply.text());";
  return `const reply = await fetch("${origin}${path}"${told});\n${shown}\n`;
}

function scriptClient({ library, call, text }, { body, origin, needsKey }) {
  const key = needsKey ? "process.env.API_KEY" : '"none"';
  const [name, base] = library === "openai" ? ["openai", `${origin}/v1`] : ["@anthropic-ai/sdk", origin];
  const made = library === "openai" ? "OpenAI" : "Anthropic";
  const method = call.replace("count_tokens", "countTokens");
  const read = text.map((step) => (typeof step === "number" ? `[${step}]` : `.${step}`)).join("");
  const shown = body.stream ? "for await (const event of answer) console.log(event);" : `console.log(answer${read});`;
  return (
    `import ${made} from "${name}";\n\nconst client = new ${made}({ baseURL: "${base}", apiKey: ${key} });\n` +
    `const answer = await client.${method}(${indented(body, "")});\n${shown}\n`
  );
}

const indented = (value, indent) => JSON.stringify(value, null, 2).replace(/\n/g, `\n${indent}`);

// A JSON value as Python writes it, on one line where it is short.
function literal(value, indent) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const deeper = `${indent}    `;
  const isList = Array.isArray(value);
  const made = (inner) => (isList ? value.map((each) => literal(each, inner)) : Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${literal(v, inner)}`));
  const [open, close] = isList ? "[]" : "{}";
  const line = `${open}${made(indent).join(", ")}${close}`;
  if (!line.includes("\n") && line.length <= SHORT - indent.length) return line;
  return `${open}\n${made(deeper).map((each) => `${deeper}${each},\n`).join("")}${indent}${close}`;
}
