"""The checkpoint as transformers runs it: the real processor, the real template, the real greedy `generate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer, Glm4vForConditionalGeneration
from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil


@dataclass(frozen=True)
class Answer:
    """What was generated for one prompt, with the logits that chose each id."""

    input_ids: list[int]
    image_grid: list[list[int]]
    generated_ids: list[int]
    logits: torch.Tensor  # f32 [generated, vocabulary]
    text: str  # decoded with its think and box tokens, without the ending token


class Reference:
    """Owns a model in fp32 (of weights that were rounded to fp16), a tokenizer and an image processor."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = Glm4vForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.processor = Glm46VImageProcessorPil.from_pretrained(folder)

    def answer(
        self,
        messages: list[dict[str, Any]],
        images: list[Image.Image],
        thinking: bool,
        most_tokens: int = 96,
    ) -> Answer:
        """Greedy answer to a chat whose pictures, in order, are `images`."""
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
        inputs: dict[str, torch.Tensor] = {}
        grid: list[list[int]] = []
        if images:
            seen = self.processor(images=images, return_tensors="pt")
            inputs |= {"pixel_values": seen["pixel_values"], "image_grid_thw": seen["image_grid_thw"]}
            grid = seen["image_grid_thw"].tolist()
        ids = self.tokenizer(_with_room(text, [h * w // 4 for _, h, w in grid]))["input_ids"]
        input_ids = torch.tensor([ids])
        self.model.model.rope_deltas = None
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                mm_token_type_ids=(input_ids == self.model.config.image_token_id).int(),
                max_new_tokens=most_tokens,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
                **inputs,
            )
        generated = out.sequences[0, len(ids) :].tolist()
        spoken = generated[:-1] if generated and generated[-1] in self.end_ids else generated
        return Answer(ids, grid, generated, torch.cat(out.logits).float(), self.tokenizer.decode(spoken))

    def ask(self, question: str, image: Image.Image | None, thinking: bool) -> Answer:
        """One question about one picture, or about none."""
        return self.answer([user_message(question, 0 if image is None else 1)], [image] if image else [], thinking)

    @property
    def end_ids(self) -> list[int]:
        return list(self.model.config.text_config.eos_token_id)


def user_message(text: str, images: int) -> dict[str, Any]:
    if not images:
        return {"role": "user", "content": text}
    return {"role": "user", "content": [*({"type": "image"} for _ in range(images)), {"type": "text", "text": text}]}


def _with_room(text: str, tokens: list[int]) -> str:
    """Each picture's single placeholder becomes as many as the picture has tokens."""
    first, *rest = text.split("<|image|>")
    return first + "".join("<|image|>" * n + part for n, part in zip(tokens, rest, strict=True))
