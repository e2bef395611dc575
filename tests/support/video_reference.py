"""What transformers makes of `video_cases.CASES`: a program of its own, since it may need a stand-in for torchvision.

`video_reference CHECKPOINT OUT.npz` writes ids, positions and pixels of each case, by its number.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from video_cases import CASES, VideoCase

_SUPPORT = Path(__file__).parent


def write_reference(checkpoint: Path, out: Path) -> None:
    """Runs this program."""
    run_apart(Path(__file__), checkpoint, out)


def run_apart(program: Path, checkpoint: Path, out: Path) -> None:
    """Runs a program with the stand-in before any torchvision that may be installed."""
    paths = [str(_SUPPORT), str(_SUPPORT / "stand_in_torchvision"), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, program, checkpoint, out], check=True, env=environment)


def processor_of(checkpoint: Path) -> Any:
    """transformers' processor of text, images and videos."""
    from transformers import AutoTokenizer
    from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil
    from transformers.models.glm46v.processing_glm46v import Glm46VProcessor
    from transformers.models.glm46v.video_processing_glm46v import Glm46VVideoProcessor

    has_own = (checkpoint / "video_preprocessor_config.json").exists()
    videos: Any = Glm46VVideoProcessor.from_pretrained(checkpoint) if has_own else Glm46VVideoProcessor()
    template = (checkpoint / "chat_template.jinja").read_text("utf-8")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    library: Any = Glm46VProcessor
    return library(Glm46VImageProcessorPil.from_pretrained(checkpoint), tokenizer, videos, chat_template=template)


def _read(processor: Any, case: VideoCase) -> Any:
    messages = [
        {
            "role": "assistant" if place % 2 else "user",
            "content": [{"type": p} if p in ("video", "image") else {"type": "text", "text": p} for p in parts],
        }
        for place, parts in enumerate(case.turns)
    ]
    text = processor.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=case.thinking
    )
    metadata = [
        {"total_num_frames": n, "fps": fps, "duration": n / fps, "height": h, "width": w}
        for n, fps, h, w in case.videos
    ]
    return processor(
        text=[text],
        images=[case.image(i) for i in range(len(case.images))] or None,
        videos=[case.frames(i) for i in range(len(case.videos))],
        video_metadata=metadata,
        return_tensors="pt",
    )


def main(checkpoint: Path, out: Path) -> None:
    import torch
    from transformers import AutoConfig
    from transformers.models.glm4v.modeling_glm4v import Glm4vForConditionalGeneration

    config: Any = AutoConfig.from_pretrained(checkpoint)
    processor = processor_of(checkpoint)
    with torch.device("meta"):
        model: Any = Glm4vForConditionalGeneration(config).model
    found: dict[str, np.ndarray] = {}
    for number, case in enumerate(CASES):
        read = _read(processor, case)
        positions, deltas = model.get_rope_index(
            read["input_ids"],
            read["mm_token_type_ids"],
            image_grid_thw=read.get("image_grid_thw"),
            video_grid_thw=read["video_grid_thw"],
        )
        found[f"ids {number}"] = read["input_ids"][0].numpy()
        found[f"positions {number}"] = positions[:, 0].numpy()
        found[f"delta {number}"] = deltas.numpy()
        found[f"pixels {number}"] = read["pixel_values_videos"].numpy()
    np.savez(out, **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
