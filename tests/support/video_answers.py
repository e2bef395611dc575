"""What transformers answers about video files: a program of its own, since it may need a stand-in for torchvision.

`video_answers CHECKPOINT OUT.json` writes the greedy tokens of an answer to each of `QUESTIONS`.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
from video_files import scene, video
from video_reference import processor_of, run_apart

MOST_TOKENS = 12
QUESTIONS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("mp4", (video(frames=20), "What happens?")),
    ("webm", (video("webm", "libvpx-vp9", frames=33, fps=15), "Which way does it move?")),
    ("gif", (video("gif", "gif", frames=12), "What colour is it?")),
    ("one frame", (video(frames=1, fps=1), "What is this?")),
    ("with a picture", (scene(3), video(frames=15), "Is the shape in the video?")),
    ("two videos", (video(frames=12), video("matroska", frames=14, width=80, height=32), "Which one is longer?")),
)
"""By name: frames u8 [height, width, 3], the bytes of video files, and text."""


def write_answers(checkpoint: Path, out: Path) -> None:
    """Runs this program."""
    run_apart(Path(__file__), checkpoint, out)


def _decoded(data: bytes) -> tuple[np.ndarray, dict[str, Any]]:
    with av.open(io.BytesIO(data)) as held:
        stream = held.streams.video[0]
        assert stream.average_rate is not None
        fps = float(stream.average_rate)
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in held.decode(stream)])
    return frames, {"total_num_frames": len(frames), "fps": fps, "duration": len(frames) / fps}


def _as_pictures(inputs: Any) -> None:
    """`generate` refuses pictures beside videos: it takes all tokens for the pictures'. So each two frames become one,
    which the model reads just the same; here the pictures come first."""
    import torch

    videos = torch.cat([row.repeat(row[0], 1) for row in inputs.pop("video_grid_thw")])
    videos[:, 0] = 1
    inputs["image_grid_thw"] = torch.cat([inputs["image_grid_thw"], videos])
    inputs["pixel_values"] = torch.cat([inputs["pixel_values"], inputs.pop("pixel_values_videos")])
    inputs["mm_token_type_ids"] = inputs["mm_token_type_ids"].clamp(max=1)


def main(checkpoint: Path, out: Path) -> None:
    import torch
    from transformers import Glm4vForConditionalGeneration

    library: Any = Glm4vForConditionalGeneration
    model = library.from_pretrained(checkpoint, dtype=torch.float32).eval()
    processor = processor_of(checkpoint)
    answers = {}
    for name, parts in QUESTIONS:
        kinds = {str: "text", bytes: "video", np.ndarray: "image"}
        content = [{"type": kinds[type(part)], **({"text": part} if isinstance(part, str) else {})} for part in parts]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        videos = [_decoded(part) for part in parts if isinstance(part, bytes)]
        inputs = processor(
            text=[text],
            images=[part for part in parts if isinstance(part, np.ndarray)] or None,
            videos=[frames for frames, _ in videos],
            video_metadata=[metadata for _, metadata in videos],
            return_tensors="pt",
        )
        inputs.pop("video_metadata", None)
        if "pixel_values" in inputs:
            _as_pictures(inputs)
        with torch.no_grad():
            made = model.generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=False)
        answers[name] = made[0, inputs["input_ids"].shape[1] :].tolist()
    out.write_text(json.dumps(answers), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
