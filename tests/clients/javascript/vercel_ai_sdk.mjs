// The Vercel AI SDK: objects, forced tools and streams through its three providers.
import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, streamText, tool } from "ai";
import { z } from "zod";

const name = "GLM-4.6V-Flash-WEB";
const baseURL = "http://127.0.0.1:5000/v1";
const schema = z.object({ colour: z.enum(["red", "green", "blue"]), isRound: z.boolean() });
const shape = tool({ description: "Names a shape.", inputSchema: schema });
const compatible = createOpenAICompatible({ name: "glm", baseURL, apiKey: "none", supportsStructuredOutputs: true })(name);
const openai = createOpenAI({ baseURL, apiKey: "none" });
const anthropic = createAnthropic({ baseURL, apiKey: "none" })(name);

for (const model of [compatible, openai.chat(name), openai(name), anthropic]) {
  const common = { model, prompt: "What is there?", maxRetries: 0, maxOutputTokens: 200 };
  const { output } = await generateText({ ...common, output: Output.object({ schema }) });
  schema.parse(output);
  for (const toolChoice of ["required", { type: "tool", toolName: "shape" }]) {
    const { toolCalls } = await generateText({ ...common, tools: { shape }, toolChoice });
    schema.parse(toolCalls[0].input);
  }
  const { textStream, finishReason } = streamText({ ...common, maxOutputTokens: 16 });
  for await (const part of textStream) assert.equal(typeof part, "string");
  assert.ok(["stop", "length"].includes(await finishReason));
}
console.log("done");
