// The words of the API's page in both languages, and the OpenAPI document's sentences in Chinese.
import { spoken } from "/page/dom.js";
import { WORDS } from "/page/words.js";

const spread = (nodes, before, after = "") => [before, ...nodes, after].filter((each) => each !== "");

Object.assign(WORDS.en, {
  api: "The API", chat: "Chat", addresses: "Addresses", skipToDocs: "To the documentation", parts: "Parts", code: "Code",
  field: "field", type: "type", ifLeftOut: "if left out", meaning: "meaning", there: "there", always: "always", atTimes: "at times",
  required: "required", requiredOr: (others) => `required, or ${others}`, none: "none", or: " or ", anything: "anything", listOf: (nodes) => spread(nodes, "list of "), sameFields: (link) => ["The same fields as ", link, "."],
  parameter: "parameter", where: "where", path: "in the path", header: "in the header", query: "in the query", status: "status", when: "when", body: "body",
  tryIt: "Try it", sendRequest: "Send", requestBody: "The request's body", yourImage: "An image of yours", resetBody: "The example again",
  badJson: (why) => `This is not JSON: ${why}`, asking: "Asking …", anAnswer: "An answer", retryAfter: (seconds) => `Retry-After ${seconds}`,
});
Object.assign(WORDS.zh, {
  api: "API 文档", chat: "对话", addresses: "接口地址", skipToDocs: "跳到文档", parts: "数据结构", code: "代码",
  field: "字段", type: "类型", ifLeftOut: "省略时", meaning: "含义", there: "是否出现", always: "总是", atTimes: "有时",
  required: "必填", requiredOr: (others) => `必填，或改用 ${others}`, none: "无", or: " 或 ", anything: "任意值", listOf: (nodes) => spread(nodes, "", " 的列表"), sameFields: (link) => ["字段与 ", link, " 相同。"],
  parameter: "参数", where: "位置", path: "路径中", header: "请求头中", query: "查询串中", status: "状态码", when: "何时", body: "内容",
  tryIt: "试一试", sendRequest: "发送", requestBody: "请求体", yourImage: "换成自己的图片", resetBody: "恢复示例",
  badJson: (why) => `这不是 JSON：${why}`, asking: "正在请求……", anAnswer: "回答示例", retryAfter: (seconds) => `${seconds} 秒后重试`,
});

const MUST = " It must be ";
const NUMBER = /\d+(\.\d+)?/g;
let sentences = null;

export async function learnChinese() {
  sentences ||= (await import("/page/docs/zh.js")).SENTENCES;
}

// A sentence of the document in the chosen language. What a field means and what it must be are translated apart.
export function said(text) {
  if (spoken() !== "zh") return text;
  const [meaning, ...must] = text.split(MUST);
  return chinese(meaning) + (must.length ? chinese(must.join(MUST)) : "");
}

// Numbers are no part of a sentence, so that a changed limit needs no new one.
function chinese(text) {
  const found = sentences[text.replace(NUMBER, "#")];
  if (found === undefined) return text;
  const numbers = text.match(NUMBER) || [];
  return found.replace(/#/g, () => numbers.shift());
}
