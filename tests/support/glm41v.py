"""A tiny checkpoint by the rules of GLM-4.1V-9B-Thinking: ids, rope, template, and config as transformers 4 wrote it.

Where the rules come from: ids of images and videos, the order of the tokens before them, 40 layers of 4096 and theta
10,000 are the defaults of transformers' `Glm4vConfig`, which is this model's. What a prompt looks like, down to the
missing line break between a picture and a question, and that the model itself writes `<think>` first, are read from the
ids and texts that transformers' own test of the model expects. That `<answer>` and `</answer>` follow the thoughts is
what its users see. The order of the tokens behind those of videos, and that `</answer>` is among the ids that end an
answer, are the best of our knowledge; nothing that we serve depends on them, because both are read from the files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from random_checkpoints import Shape, make

CONTROLS = (
    *("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    *("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>", "<|video|>"),
    *("<think>", "</think>", "<answer>", "</answer>", "<|begin_of_box|>", "<|end_of_box|>"),
)
ENDS = ("<|endoftext|>", "<|user|>", "<|observation|>", "</answer>")
SHAPE = Shape(
    "glm-4.1v",
    hidden=256,
    heads=2,
    kv_heads=1,
    mrope_section=(8, 12, 12),
    rope_theta=10_000.0,
    controls=CONTROLS,
    ends=ENDS,
)

TEMPLATE = """\
{%- macro shown(content) -%}
  {%- if content is string -%}{{- content -}}
  {%- else -%}
    {%- for part in content -%}
      {%- if part.type == 'image' -%}{{- '<|begin_of_image|><|image|><|end_of_image|>' -}}
      {%- elif part.type == 'video' -%}{{- '<|begin_of_video|><|video|><|end_of_video|>' -}}
      {%- elif part.type == 'text' -%}{{- part.text -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{{- '[gMASK]<sop>' -}}
{%- for message in messages -%}
  {{- '<|' + message.role + '|>\\n' + shown(message.content) -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}
"""


def make_glm41v(folder: Path, shape: Shape = SHAPE) -> Path:
    """Writes the checkpoint into a new folder and returns it. Needs torch."""
    made = make(shape, folder)
    (made / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    processor = json.loads((made / "preprocessor_config.json").read_text("utf-8"))
    processor |= {"image_processor_type": "Glm4vImageProcessor", "processor_class": "Glm4vProcessor"}
    (made / "preprocessor_config.json").write_text(json.dumps(processor), "utf-8")
    tokenizer = json.loads((made / "tokenizer_config.json").read_text("utf-8"))
    tokenizer |= {"additional_special_tokens": list(CONTROLS[:16]), "processor_class": "Glm4vProcessor"}
    (made / "tokenizer_config.json").write_text(json.dumps(tokenizer), "utf-8")
    config = json.loads((made / "config.json").read_text("utf-8"))
    (made / "config.json").write_text(json.dumps(as_transformers_4_wrote(config)), "utf-8")
    return made


def as_transformers_4_wrote(config: dict[str, Any]) -> dict[str, Any]:
    """The same config with rope's values in `rope_scaling` and beside it, and no rope in `vision_config`."""
    text, vision = dict(config["text_config"]), dict(config["vision_config"])
    rope = text.pop("rope_parameters")
    vision.pop("rope_parameters", None)
    text |= {
        "rope_theta": rope["rope_theta"],
        "partial_rotary_factor": rope["partial_rotary_factor"],
        "rope_scaling": {"rope_type": "default", "mrope_section": rope["mrope_section"]},
    }
    return config | {"text_config": text, "vision_config": vision, "transformers_version": "4.57.1"}
