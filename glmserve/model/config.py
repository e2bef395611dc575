"""What a Hugging Face checkpoint folder says about its model, read once into typed, checked facts.

Nothing about the model is hard-coded: ids, rope values and sizes come from `config.json`, image rules from
`preprocessor_config.json`, those of videos from `video_preprocessor_config.json`. The only defaults are those of the
`transformers` classes for keys that a file leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from glmserve.errors import BadArtifact, UnknownArchitecture
from glmserve.model.config_section import Section
from glmserve.model.image_processor import ImageRules

ARCHITECTURE = "Glm4vForConditionalGeneration"
PROCESSOR_FILES = ("config.json", "preprocessor_config.json", "tokenizer.json", "chat_template.jinja")
"""The checkpoint's files that a server needs besides the graphs."""
VIDEO_FILE = "video_preprocessor_config.json"
OPTIONAL_FILES = ("generation_config.json", VIDEO_FILE)
"""Files that it reads where the checkpoint has them."""
_LEAST_VIDEO_PIXELS, _MOST_VIDEO_PIXELS = 112 * 112, 28 * 28 * 2 * 30_000
"""Of transformers' video processor, where the checkpoint has no file for it."""
_BESIDE_ROPE = ("rope_theta", "partial_rotary_factor")


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
    """The image encoder's shape; its blocks' MLP is `out_hidden` wide, only the merger uses `ffn`."""

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
    videos: ImageRules
    """As `images`; the bounds of pixels are of all frames of a video together."""
    image_token_id: int
    eos_token_ids: tuple[int, ...]
    is_demo: bool = False
    """Whether this is the demo model of drawn shapes, as its config says."""

    @staticmethod
    def read(folder: Path) -> Checkpoint:
        """The facts of a checkpoint (or of a build, which keeps the same files); raises BadArtifact by file and key."""
        config = Section.load(folder / "config.json")
        processor = Section.load(folder / "preprocessor_config.json")
        architectures = config.words("architectures")
        if ARCHITECTURE not in architectures:
            named = ", ".join(architectures) or "none"
            raise UnknownArchitecture(
                f"config.json names the architecture {named}; this project serves {ARCHITECTURE}."
            )
        text = _text_model(config)
        vision = _vision_model(config.section("vision_config"))
        images = _image_rules(processor, vision)
        if vision.out_hidden != text.hidden:
            raise BadArtifact(
                f"vision out_hidden_size {vision.out_hidden} differs from text hidden_size {text.hidden}."
            )
        return Checkpoint(
            text=text,
            vision=vision,
            images=images,
            videos=_video_rules(folder, images),
            image_token_id=config.index("image_token_id", text.vocabulary),
            eos_token_ids=_eos_token_ids(folder, config),
            is_demo=config.values.get("is_demo") is True,
        )


def _text_section(config: Section) -> Section:
    """The text model's values; the first releases of the architecture kept them beside everything else."""
    is_flat = "text_config" not in config.values and "hidden_size" in config.values
    return config if is_flat else config.section("text_config")


def _text_model(config: Section) -> TextModel:
    section = _text_section(config)
    if section.values.get("hidden_act", "silu") != "silu":
        raise BadArtifact(f"{section.name}: hidden_act must be silu.")
    hidden, heads = section.count("hidden_size"), section.count("num_attention_heads")
    head_dim = hidden // heads
    if head_dim == 0 or section.values.get("head_dim") not in (None, head_dim):
        raise BadArtifact(f"{section.name}: a head must be hidden_size / num_attention_heads wide.")
    is_null = section.values.get("num_key_value_heads", 2) is None
    kv_heads = heads if is_null else section.count("num_key_value_heads", 2)
    if heads % kv_heads != 0:
        raise BadArtifact(f"{section.name}: num_attention_heads must be a multiple of num_key_value_heads.")
    rope = _rope(section)
    if rope.values.get("rope_type", rope.values.get("type", "default")) not in ("default", "mrope"):
        raise BadArtifact(f"{rope.name}: only the default rope is supported.")
    share = rope.positive("partial_rotary_factor", 1.0)
    if share > 1:
        raise BadArtifact(f"{rope.name}: partial_rotary_factor must be at most 1.")
    rotary_dim = int(head_dim * share)
    sections = rope.three_counts("mrope_section", (8, 12, 12))
    if 2 * sum(sections) != rotary_dim:
        raise BadArtifact(f"{rope.name}: mrope_section {list(sections)} must add up to {rotary_dim // 2}.")
    return TextModel(
        layers=section.count("num_hidden_layers"),
        hidden=hidden,
        ffn=section.count("intermediate_size"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=section.count("vocab_size"),
        norm_eps=section.positive("rms_norm_eps", 1e-5),
        rope_theta=rope.positive("rope_theta", 10_000.0),
        rotary_dim=rotary_dim,
        mrope_section=sections,
        max_positions=section.count("max_position_embeddings", 32_768),
        tied_head=any(bool(held.values.get("tie_word_embeddings")) for held in (config, section)),
    )


def _rope(section: Section) -> Section:
    """The rope values as transformers takes them: of `rope_scaling`, the older name, if it holds any, or else of
    `rope_parameters`; theta and the rotated share may also stand beside either, and count where it has none."""
    name = "rope_scaling" if section.values.get("rope_scaling") else "rope_parameters"
    held = section.section(name) if section.values.get(name) else Section(section.name, {})
    beside = {key: section.values[key] for key in _BESIDE_ROPE if key in section.values}
    if beside.get("partial_rotary_factor", 1) is None:
        del beside["partial_rotary_factor"]
    return Section(held.name, beside | held.values)


def _vision_model(section: Section) -> VisionModel:
    if section.values.get("hidden_act", "silu") != "silu" or section.count("in_channels", 3) != 3:
        raise BadArtifact(f"{section.name}: hidden_act must be silu and in_channels 3.")
    hidden, heads = section.count("hidden_size"), section.count("num_heads")
    patch_size, image_side = section.count("patch_size", 14), section.count("image_size")
    if hidden % (4 * heads) != 0:
        raise BadArtifact(f"{section.name}: hidden_size must be a multiple of four times num_heads.")
    if image_side < patch_size:
        raise BadArtifact(f"{section.name}: image_size must be at least patch_size.")
    return VisionModel(
        depth=section.count("depth"),
        hidden=hidden,
        heads=heads,
        out_hidden=section.count("out_hidden_size"),
        ffn=section.count("intermediate_size"),
        patch_size=patch_size,
        merge_size=section.count("spatial_merge_size", 2),
        temporal_patch_size=section.count("temporal_patch_size", 2),
        table_side=image_side // patch_size,
        norm_eps=section.positive("rms_norm_eps", 1e-5),
        rope_theta=_rope(section).positive("rope_theta", 10_000.0),
        attention_bias=bool(section.values.get("attention_bias", False)),
    )


def _image_rules(section: Section, vision: VisionModel) -> ImageRules:
    """The preprocessor's rules, which cut images into the patches that the image encoder takes."""
    size = section.section("size")
    for key, of_vision, right in (
        ("patch_size", "patch_size", vision.patch_size),
        ("merge_size", "spatial_merge_size", vision.merge_size),
        ("temporal_patch_size", "temporal_patch_size", vision.temporal_patch_size),
    ):
        if section.count(key, right) != right:
            raise BadArtifact(f"{section.name}: {key} must be {right}, as vision_config has it in {of_vision}.")
    rules = ImageRules(
        patch_size=vision.patch_size,
        merge_size=vision.merge_size,
        temporal_patch_size=vision.temporal_patch_size,
        min_pixels=size.count("shortest_edge"),
        max_pixels=size.count("longest_edge"),
        mean=section.three_numbers("image_mean"),
        std=section.three_numbers("image_std"),
    )
    if min(rules.std) <= 0:
        raise BadArtifact(f"{section.name}: image_std must be three positive numbers.")
    if rules.max_pixels < rules.min_pixels:
        raise BadArtifact(f"{size.name}: longest_edge must be at least shortest_edge.")
    return rules


def _video_rules(folder: Path, images: ImageRules) -> ImageRules:
    """The bounds of videos; the patches of their frames are cut and normalised as those of images."""
    if not (folder / VIDEO_FILE).exists():
        return replace(images, min_pixels=_LEAST_VIDEO_PIXELS, max_pixels=_MOST_VIDEO_PIXELS)
    section = Section.load(folder / VIDEO_FILE)
    size = section.section("size")
    rules = replace(images, min_pixels=size.count("shortest_edge"), max_pixels=size.count("longest_edge"))
    for key, right in (
        ("patch_size", images.patch_size),
        ("merge_size", images.merge_size),
        ("temporal_patch_size", images.temporal_patch_size),
        ("image_mean", list(images.mean)),
        ("image_std", list(images.std)),
    ):
        if section.values.get(key, right) != right:
            raise BadArtifact(f"{section.name}: {key} must be {right}, as preprocessor_config.json has it.")
    if rules.max_pixels < rules.min_pixels:
        raise BadArtifact(f"{size.name}: longest_edge must be at least shortest_edge.")
    return rules


def _eos_token_ids(folder: Path, config: Section) -> tuple[int, ...]:
    """The ids that end an answer: `generation_config.json` where there is one, as in `generate`, else `config.json`."""
    sections = [_text_section(config), config]
    if (folder / "generation_config.json").exists():
        sections.insert(0, Section.load(folder / "generation_config.json"))
    for section in sections:
        value = section.values.get("eos_token_id")
        ids = value if isinstance(value, list) else [value]
        if ids and all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
            return tuple(ids)
    raise BadArtifact("The checkpoint names no eos_token_id.")
