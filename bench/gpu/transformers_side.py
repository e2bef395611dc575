"""torch's half of the GPU check: transformers' speed on the same device, and how likely the build's tokens are to it.

`python -m bench.gpu.transformers_side PLAN OURS RESULT` reads and writes JSON; needs torch and transformers.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Glm4vForConditionalGeneration
from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil

from bench.gpu.plan import Plan

_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Transformers:
    """The checkpoint in transformers, in the precision and on the device of the plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        loaded: Any = Glm4vForConditionalGeneration.from_pretrained(plan.checkpoint, dtype=_TYPES[plan.precision])
        self._model = loaded.to(plan.device).eval()

    @torch.no_grad()
    def decode_tokens_per_s(self, prompts: np.ndarray) -> float:
        """Tokens a second of `generate` on rows of one length, after their prefill."""
        self._generate_s(prompts, 2)  # warms up
        prefill_s = self._generate_s(prompts, 1)
        whole_s = self._generate_s(prompts, self._plan.new_tokens)
        return len(prompts) * (self._plan.new_tokens - 1) / max(whole_s - prefill_s, 1e-9)

    @torch.no_grad()
    def judge(self, prompt: np.ndarray, answer: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """For each token of an answer, given what stands before it: its log-probability f64 [tokens], and by how much
        that of the likeliest token is larger (0 where it is the likeliest)."""
        ids = torch.tensor([*prompt.tolist(), *answer], device=self._plan.device)[None]
        logits = self._model(**_text(ids)).logits[0, len(prompt) - 1 : -1]
        own = torch.tensor(answer, device=self._plan.device)[:, None]
        every = logits.double().log_softmax(-1)
        logprobs = every.gather(1, own)[:, 0]
        return logprobs.cpu().numpy(), (every.max(-1).values - logprobs).cpu().numpy()

    @torch.no_grad()
    def features(self) -> np.ndarray:
        """The plan's image through transformers' own processor and encoder, f32 [image tokens, hidden]."""
        processor: Any = Glm46VImageProcessorPil.from_pretrained(self._plan.checkpoint)
        image = Image.open(self._plan.image).convert("RGB")
        read = processor(images=[image], return_tensors="pt")
        pixels = read["pixel_values"].to(self._plan.device, _TYPES[self._plan.precision])
        found = self._model.model.visual(pixels, grid_thw=read["image_grid_thw"].to(self._plan.device))
        return np.asarray(found.pooler_output.float().cpu())

    def _generate_s(self, prompts: np.ndarray, new_tokens: int) -> float:
        ids = torch.tensor(prompts, device=self._plan.device)
        self._wait()
        began_s = time.perf_counter()
        self._model.generate(**_text(ids), min_new_tokens=new_tokens, max_new_tokens=new_tokens, do_sample=False)
        self._wait()
        return time.perf_counter() - began_s

    def _wait(self) -> None:
        if self._plan.device == "cuda":
            torch.cuda.synchronize()


def run(plan: Plan, ours: dict[str, Any]) -> dict[str, Any]:
    """All results of torch's half, as they go into JSON."""
    torch.set_num_threads(plan.threads)
    baseline = Transformers(plan)
    prompts = np.asarray(ours["prompts"], np.int64)
    lost = [
        np.concatenate([baseline.judge(*pair)[1] for pair in zip(prompts, decoded["tokens"], strict=False)])
        for decoded in ours["decoded"]
    ]
    checked = ours["checked"]
    errors = [
        np.abs(baseline.judge(prompt, answer)[0] - np.asarray(logprobs))
        for prompt, answer, logprobs in zip(prompts, checked["tokens"], checked["logprobs"], strict=False)
    ]
    wanted = baseline.features()
    off = np.linalg.norm(np.asarray(ours["vision"]["features"]) - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)
    return {
        "decode_tokens_per_s": {rows: baseline.decode_tokens_per_s(prompts[:rows]) for rows in plan.rows},
        "changed_share": [float(np.mean(one > 0)) for one in lost],
        "worst_loss": [float(one.max()) for one in lost],
        "logprob_error": {"worst": float(np.max(errors)), "median": float(np.median(errors))},
        "feature_error": {"worst": float(off.max()), "median": float(np.median(off))},
        "torch": torch.__version__,
    }


def _text(ids: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": torch.zeros_like(ids).int()}


if __name__ == "__main__":
    found = run(Plan.read(Path(sys.argv[1])), json.loads(Path(sys.argv[2]).read_text("utf-8")))
    Path(sys.argv[3]).write_text(json.dumps(found), "utf-8")
