// Every word the page shows, in each of its languages.
"use strict";
const WORDS = {
  en: {
    title: "Ask a picture", docs: "API", theme: "Light / dark", drop: "Drop or paste a picture here",
    choose: "or press to choose one: JPEG, PNG, WebP, BMP, GIF", key: "API key", empty: "Your questions and the answers will stand here.",
    question: "Question", hint: "What do you want to know?", thinking: "Think first", again: "Start over", stop: "Stop", send: "Ask",
    talk: "Conversation", you: "You", model: "Model", thoughts: "Thoughts", waiting: "Reading …", stopped: "Stopped.",
    notPicture: "This file is not a picture.", broken: "This picture is broken, or of a kind that cannot be read.", picture: "The chosen picture",
    remove: "Remove the picture", lost: "The connection was lost; please try again.", tooLarge: "This is too large to be sent: choose a smaller picture.",
    unreadable: (status) => `The service could not answer just now (${status}); please try again.`,
    needsKey: "An API key is needed: type yours into the field “API key” under the picture, then ask again.",
    wrongKey: "This API key is not valid: correct it in the field “API key” under the picture, then ask again.",
    noAnswer: "The model said nothing.", onlyThoughts: "The model thought, but gave no answer: ask again, or without “Think first”.",
    badge: "demo model", sample: "Try a sample picture",
    demo: "Demo: a tiny model that knows only drawn shapes and numbers. It is not GLM-4.6V-Flash.",
    samples: ["How many shapes are there?", "What do you see?", "Where is the star?"],
    stats: (u, t) => `${u.prompt_tokens} tokens asked (${u.image_tokens} of the picture), ${u.completion_tokens} answered · ` +
      `first word ${t.first} · ${t.rate} tokens/s · ${t.total} in all`,
  },
  zh: {
    title: "看图问答", docs: "API", theme: "浅色 / 深色", drop: "把图片拖到这里，或直接粘贴",
    choose: "也可以点击选择：JPEG、PNG、WebP、BMP、GIF", key: "API 密钥", empty: "您的问题和回答会显示在这里。",
    question: "问题", hint: "您想知道什么？", thinking: "先思考", again: "重新开始", stop: "停止", send: "提问",
    talk: "对话", you: "您", model: "模型", thoughts: "思考过程", waiting: "正在看图……", stopped: "已停止。",
    notPicture: "这个文件不是图片。", broken: "这张图片已损坏，或格式无法读取。", picture: "所选图片",
    remove: "移除图片", lost: "连接中断，请重试。", tooLarge: "内容太大，无法发送：请换一张小一些的图片。",
    unreadable: (status) => `服务暂时无法回答（${status}），请重试。`,
    needsKey: "需要 API 密钥：请在图片下方的“API 密钥”栏中填写，然后重新提问。",
    wrongKey: "这个 API 密钥无效：请在图片下方的“API 密钥”栏中更正，然后重新提问。",
    noAnswer: "模型没有回答。", onlyThoughts: "模型思考了，但没有给出回答：请重新提问，或取消“先思考”。",
    badge: "演示模型", sample: "试试示例图片",
    demo: "演示：一个很小的模型，只认识画出来的图形和数字，并不是 GLM-4.6V-Flash。",
    samples: ["图中有几个物体？", "你看到什么？", "星形在哪里？"],
    stats: (u, t) => `提问 ${u.prompt_tokens} 个词元（图片 ${u.image_tokens} 个），回答 ${u.completion_tokens} 个 · ` +
      `首词 ${t.first} · 每秒 ${t.rate} 个词元 · 共 ${t.total}`,
  },
};
