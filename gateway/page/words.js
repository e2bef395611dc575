// Every word the page shows, in each of its languages.
"use strict";
const WORDS = {
  en: {
    title: "Ask a picture", theme: "Light / dark", drop: "Drop or paste a picture here",
    choose: "or press to choose one: JPEG, PNG, WebP, BMP, GIF", key: "API key", empty: "Your questions and the answers will stand here.",
    question: "Question", hint: "What do you want to know?", thinking: "Think first", again: "Start over", stop: "Stop", send: "Ask",
    talk: "Conversation", you: "You", model: "Model", thoughts: "Thoughts", waiting: "Reading …", stopped: "Stopped.",
    notPicture: "This file is not a picture.", lost: "The connection was lost; please try again.", picture: "The chosen picture",
    stats: (u, t) => `${u.prompt_tokens} tokens asked (${u.image_tokens} of the picture), ${u.completion_tokens} answered · ` +
      `first word ${t.first} · ${t.rate} tokens/s · ${t.total} in all`,
  },
  zh: {
    title: "看图问答", theme: "浅色 / 深色", drop: "把图片拖到这里，或直接粘贴",
    choose: "也可以点击选择：JPEG、PNG、WebP、BMP、GIF", key: "API 密钥", empty: "您的问题和回答会显示在这里。",
    question: "问题", hint: "您想知道什么？", thinking: "先思考", again: "重新开始", stop: "停止", send: "提问",
    talk: "对话", you: "您", model: "模型", thoughts: "思考过程", waiting: "正在看图……", stopped: "已停止。",
    notPicture: "这个文件不是图片。", lost: "连接中断，请重试。", picture: "所选图片",
    stats: (u, t) => `提问 ${u.prompt_tokens} 个词元（图片 ${u.image_tokens} 个），回答 ${u.completion_tokens} 个 · ` +
      `首词 ${t.first} · 每秒 ${t.rate} 个词元 · 共 ${t.total}`,
  },
};
