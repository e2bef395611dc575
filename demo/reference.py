"""The checkpoint as transformers runs it: the real processor, the real template, the real greedy `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer, Glm4vForConditionalGeneration
from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil

from demo.exam import MOST_TOKENS, Asked


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
        images: Sequence[Image.Image],
        thinking: bool,
        tools: Sequence[dict[str, Any]] = (),
        times: Sequence[str] = (),
        most_tokens: int = MOST_TOKENS,
    ) -> Answer:
        """Greedy answer to a chat whose pictures, in order, are `images`.

        With `times` the images are the frames of the chat's one video, two to each stamp.
        """
        text = self.tokenizer.apply_chat_template(
            messages, tools=list(tools) or None, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
        inputs: dict[str, torch.Tensor] = {}
        grid: list[list[int]] = []
        if images:
            inputs, grid = self._film(images) if times else self._pictures(images)
        ids = self.tokenizer(_with_room(text, grid, times))["input_ids"]
        input_ids = torch.tensor([ids])
        self.model.model.rope_deltas = None
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                mm_token_type_ids=(input_ids == self.model.config.image_token_id).int() * (2 if times else 1),
                max_new_tokens=most_tokens,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
                **inputs,
            )
        generated = out.sequences[0, len(ids) :].tolist()
        spoken = generated[:-1] if generated and generated[-1] in self.end_ids else generated
        return Answer(ids, grid, generated, torch.cat(out.logits).float(), self.tokenizer.decode(spoken))

    def ask(self, asked: Asked) -> Answer:
        """The answer to a question of the exam."""
        shared = asked.shared
        return self.answer(asked.messages, asked.pictures, asked.thinking, shared.tools, shared.times)

    def _pictures(self, images: Sequence[Image.Image]) -> tuple[dict[str, torch.Tensor], list[list[int]]]:
        seen = self.processor(images=list(images), return_tensors="pt")
        inputs = {"pixel_values": seen["pixel_values"], "image_grid_thw": seen["image_grid_thw"]}
        return inputs, seen["image_grid_thw"].tolist()

    def _film(self, frames: Sequence[Image.Image]) -> tuple[dict[str, torch.Tensor], list[list[int]]]:
        """Frames of a size that needs no resize; two of them make one patch [colours, 2, 14, 14]."""
        seen = self.processor(images=list(frames), return_tensors="pt")
        _, rows, columns = seen["image_grid_thw"][0].tolist()
        stills = seen["pixel_values"].view(len(frames) // 2, 2, rows * columns, 3, 2, 14, 14)[:, :, :, :, 0]
        pixels = stills.permute(0, 2, 3, 1, 4, 5).reshape(len(frames) // 2 * rows * columns, -1)
        grid = [[len(frames) // 2, rows, columns]]
        return {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor(grid)}, grid

    @property
    def end_ids(self) -> list[int]:
        return list(self.model.config.text_config.eos_token_id)


def user_message(text: str, images: int) -> dict[str, Any]:
    if not images:
        return {"role": "user", "content": text}
    return {"role": "user", "content": [*({"type": "image"} for _ in range(images)), {"type": "text", "text": text}]}


def _with_room(text: str, grid: list[list[int]], times: Sequence[str]) -> str:
    """Each picture's single placeholder becomes as many as it has tokens; a video's, stamped frames."""
    if times:
        tokens = "<|image|>" * (grid[0][1] * grid[0][2] // 4)
        frames = (f"<|begin_of_image|>{tokens}<|end_of_image|>{time} seconds" for time in times)
        return text.replace("<|video|>", "".join(frames))
    first, *rest = text.split("<|image|>")
    sizes = (rows * columns // 4 for _, rows, columns in grid)
    return first + "".join("<|image|>" * n + part for n, part in zip(sizes, rest, strict=True))
