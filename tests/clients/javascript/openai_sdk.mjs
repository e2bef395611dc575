// OpenAI's SDK for JavaScript: parsing, forced tools, streams and responses.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const model = "GLM-4.6V-Flash-WEB";
const Shape = z.object({ colour: z.enum(["red", "green", "blue"]), isRound: z.boolean() });
const client = new OpenAI({ baseURL: "http://127.0.0.1:5000/v1", apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "What is there?" }];

const parsed = await client.chat.completions.parse({ model, messages, response_format: zodResponseFormat(Shape, "shape") });
Shape.parse(parsed.choices[0].message.parsed);

const tools = [{ type: "function", function: { name: "shape", parameters: z.toJSONSchema(Shape) } }];
const called = await client.chat.completions.create({ model, messages, tools, tool_choice: "required" });
Shape.parse(JSON.parse(called.choices[0].message.tool_calls[0].function.arguments));

const stream = client.chat.completions.stream({ model, messages, max_tokens: 16 });
assert.ok((await stream.finalChatCompletion()).choices.length === 1);

const answer = await client.responses.parse({ model, input: "What is there?", text: { format: zodTextFormat(Shape, "shape") } });
Shape.parse(answer.output_parsed);
const kinds = [];
for await (const event of client.responses.stream({ model, input: "Say something.", max_output_tokens: 16 })) kinds.push(event.type);
assert.equal(kinds[0], "response.created");
console.log("done");
