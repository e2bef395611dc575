"""What a Hugging Face checkpoint folder says about its model, read once into typed, checked facts.

Nothing about the model is hard-coded: ids, rope values and sizes come from `config.json`, picture rules from
`preprocessor_config.json`. The only defaults are those of the `transformers` classes for keys a file leaves out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmserve.errors import BadArtifact, UnknownArchitecture
from glmserve.images import ImageRules

ARCHITECTURE = "Glm4vForConditionalGeneration"
PROCESSOR_FILES = ("config.json", "preprocessor_config.json", "tokenizer.json", "chat_template.jinja")
"""What a server needs of a checkpoint besides its graphs."""


@dataclass(frozen=True)
class TextModel:
    """The decoder's shape; `mrope_section` counts rotary frequencies given to T, H and W."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    norm_eps: float
    rope_theta: float
    rotary_dim: int
    mrope_section: tuple[int, ...]
    max_positions: int
    tied_head: bool


@dataclass(frozen=True)
class VisionModel:
    """The picture encoder's shape; its blocks' MLP is `out_hidden` wide, only the merger uses `ffn`."""

    depth: int
    hidden: int
    heads: int
    out_hidden: int
    ffn: int
    patch_size: int
    merge_size: int
    temporal_patch_size: int
    table_side: int
    norm_eps: float
    rope_theta: float
    attention_bias: bool

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint folder's facts."""

    text: TextModel
    vision: VisionModel
    images: ImageRules
    image_token_id: int
    eos_token_ids: tuple[int, ...]
    is_demo: bool = False
    """Whether this is the tiny model of drawn shapes, which says so itself."""

    @staticmethod
    def read(folder: Path) -> Checkpoint:
        """The facts of a checkpoint (or of a build, which keeps the same files); raises BadArtifact by file and key."""
        config = _Section.load(folder / "config.json")
        processor = _Section.load(folder / "preprocessor_config.json")
        architectures = config.values.get("architectures") or []
        if ARCHITECTURE not in architectures:
            named = ", ".join(map(str, architectures)) or "none"
            raise UnknownArchitecture(
                f"config.json names the architecture {named}; this project serves {ARCHITECTURE}."
            )
        text = _text_model(config.section("text_config"), bool(config.values.get("tie_word_embeddings", False)))
        vision = _vision_model(config.section("vision_config"))
        if vision.out_hidden != text.hidden:
            raise BadArtifact(
                f"vision out_hidden_size {vision.out_hidden} differs from text hidden_size {text.hidden}."
            )
        return Checkpoint(
            text=text,
            vision=vision,
            images=_image_rules(processor, vision),
            image_token_id=config.integer("image_token_id"),
            eos_token_ids=_eos_token_ids(folder, config),
            is_demo=config.values.get("is_demo") is True,
        )


@dataclass(frozen=True)
class _Section:
    """One object of a JSON file, whose getters name the file and key they miss."""

    name: str
    values: dict[str, Any]

    @staticmethod
    def load(path: Path) -> _Section:
        try:
            values = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise BadArtifact(f"The checkpoint has no {path.name}.") from None
        except (OSError, ValueError):
            raise BadArtifact(f"The checkpoint's {path.name} is not readable JSON.") from None
        if not isinstance(values, dict):
            raise BadArtifact(f"The checkpoint's {path.name} must hold a JSON object.")
        return _Section(path.name, values)

    def section(self, key: str) -> _Section:
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise BadArtifact(f"{self.name}: {key} is missing or not an object.")
        return _Section(f"{self.name}: {key}", value)

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadArtifact(f"{self.name}: {key} must be an integer.")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadArtifact(f"{self.name}: {key} must be a number.")
        return float(value)

    def three(self, key: str, kind: type[int] | type[float]) -> tuple[Any, Any, Any]:
        value = self.values.get(key)
        if not isinstance(value, list) or len(value) != 3 or not all(isinstance(v, int | float) for v in value):
            raise BadArtifact(f"{self.name}: {key} must be three numbers.")
        return kind(value[0]), kind(value[1]), kind(value[2])


def _text_model(section: _Section, tied: bool) -> TextModel:
    if section.values.get("hidden_act", "silu") != "silu":
        raise BadArtifact(f"{section.name}: hidden_act must be silu.")
    hidden, heads = section.integer("hidden_size"), section.integer("num_attention_heads")
    head_dim = hidden // heads
    rope = _rope(section)
    if rope.values.get("rope_type", rope.values.get("type", "default")) not in ("default", "mrope"):
        raise BadArtifact(f"{rope.name}: only the default rope is supported.")
    rotary_dim = int(head_dim * rope.number("partial_rotary_factor", 1.0))
    sections = rope.three("mrope_section", int)
    if 2 * sum(sections) != rotary_dim:
        raise BadArtifact(f"{rope.name}: mrope_section {list(sections)} must add up to {rotary_dim // 2}.")
    return TextModel(
        layers=section.integer("num_hidden_layers"),
        hidden=hidden,
        ffn=section.integer("intermediate_size"),
        heads=heads,
        kv_heads=section.integer("num_key_value_heads", heads),
        head_dim=head_dim,
        vocabulary=section.integer("vocab_size"),
        norm_eps=section.number("rms_norm_eps", 1e-5),
        rope_theta=rope.number("rope_theta", 10_000.0),
        rotary_dim=rotary_dim,
        mrope_section=sections,
        max_positions=section.integer("max_position_embeddings", 32_768),
        tied_head=tied,
    )


def _rope(section: _Section) -> _Section:
    """The text rope values; older files spread them over `rope_scaling` and the section itself."""
    if "rope_parameters" in section.values:
        return section.section("rope_parameters")
    keys = ("rope_theta", "partial_rotary_factor")
    flat = {key: section.values[key] for key in keys if key in section.values}
    return _Section(section.name, {**flat, **section.section("rope_scaling").values})


def _vision_model(section: _Section) -> VisionModel:
    patch_size = section.integer("patch_size", 14)
    if section.values.get("hidden_act", "silu") != "silu" or section.integer("in_channels", 3) != 3:
        raise BadArtifact(f"{section.name}: hidden_act must be silu and in_channels 3.")
    rope = section.section("rope_parameters") if "rope_parameters" in section.values else section
    return VisionModel(
        depth=section.integer("depth"),
        hidden=section.integer("hidden_size"),
        heads=section.integer("num_heads"),
        out_hidden=section.integer("out_hidden_size"),
        ffn=section.integer("intermediate_size"),
        patch_size=patch_size,
        merge_size=section.integer("spatial_merge_size", 2),
        temporal_patch_size=section.integer("temporal_patch_size", 2),
        table_side=section.integer("image_size") // patch_size,
        norm_eps=section.number("rms_norm_eps", 1e-5),
        rope_theta=rope.number("rope_theta", 10_000.0),
        attention_bias=bool(section.values.get("attention_bias", False)),
    )


def _image_rules(section: _Section, vision: VisionModel) -> ImageRules:
    size = section.section("size")
    return ImageRules(
        patch_size=section.integer("patch_size", vision.patch_size),
        merge_size=section.integer("merge_size", vision.merge_size),
        temporal_patch_size=section.integer("temporal_patch_size", vision.temporal_patch_size),
        min_pixels=size.integer("shortest_edge"),
        max_pixels=size.integer("longest_edge"),
        mean=section.three("image_mean", float),
        std=section.three("image_std", float),
    )


def _eos_token_ids(folder: Path, config: _Section) -> tuple[int, ...]:
    """The ids that end an answer: `generation_config.json` where there is one, as in `generate`, else `config.json`."""
    sections = [config.section("text_config"), config]
    if (folder / "generation_config.json").exists():
        sections.insert(0, _Section.load(folder / "generation_config.json"))
    for section in sections:
        value = section.values.get("eos_token_id")
        ids = value if isinstance(value, list) else [value]
        if ids and all(isinstance(i, int) for i in ids):
            return tuple(ids)
    raise BadArtifact("The checkpoint names no eos_token_id.")
