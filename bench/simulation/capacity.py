"""A small model of one GPU serving the real model: slots by the engine's own plan, speeds by bytes and operations."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from bench.simulation.step_times import StepTimes
from glmserve.engine.memory_plan import element_bytes, memory_plan
from glmserve.engine.settings import EngineSettings
from glmserve.model.config import Checkpoint, TextModel, VisionModel
from glmserve.model.image_processor import ImageRules

# fmt: off
MODEL = Checkpoint(
    text=TextModel(
        layers=40, hidden=4096, ffn=13696, heads=32, kv_heads=2, head_dim=128, vocabulary=151_552, norm_eps=1e-5,
        rope_theta=500_000.0, rotary_dim=64, mrope_section=(8, 12, 12), max_positions=131_072, tied_head=False,
    ),
    vision=VisionModel(
        depth=24, hidden=1536, heads=12, out_hidden=4096, ffn=13696, patch_size=14, merge_size=2,
        temporal_patch_size=2, table_side=24, norm_eps=1e-5, rope_theta=10_000.0, attention_bias=False,
    ),
    images=ImageRules(14, 2, 2, 12_544, 9_633_792, (0.0,) * 3, (1.0,) * 3),
    image_token_id=151_363,
    eos_token_ids=(151_329,),
)
# fmt: on
"""The real checkpoint's shape; a test compares it with the real config.json where that lies beside the project."""
WEIGHT_BYTES = {"bf16": 20.6e9, "int8": 12.3e9, "int4": 7.9e9}
"""Of a build, in memory: embeddings and vision encoder stay in 16 bits."""
BYTES_A_PARAMETER = {"bf16": 2.0, "int8": 1.0625, "int4": 0.5625}
"""Read for every weight of the text model in every step, scales of blocks of 32 included."""
BANDWIDTH_SHARE = 0.7
FLOPS_SHARE = 0.4
"""The shares of a card's published figures that a step reaches, by assumption: nothing was measured on a card yet."""
_GIB = 1024**3
_CHUNK_TOKENS: int = EngineSettings.model_fields["chunk_tokens"].default
_MOST_SLOTS = 128  # beyond, a card multiplies rather than reads, and more rows gain little


@dataclass(frozen=True)
class Gpu:
    """A card as its maker publishes it: memory, its bandwidth, and dense bf16 operations with fp32 sums, in 10^12."""

    name: str
    memory_gib: float
    bandwidth_gb_s: float
    tflops: float


GPUS = (
    Gpu("RTX 3090", 24, 936, 71),
    Gpu("RTX 4090", 24, 1008, 165),
    Gpu("A10G", 24, 600, 70),
    Gpu("L4", 24, 300, 121),
    Gpu("L40S", 48, 864, 362),
    Gpu("A100 80 GB", 80, 2039, 312),
    Gpu("H100 SXM", 80, 3350, 989),
    Gpu("H200", 141, 4800, 989),
)


@dataclass(frozen=True)
class Demand:
    """An average request, and the longest time that is allowed between two tokens."""

    image_tokens: int = 391
    text_tokens: int = 100
    answer_tokens: int = 128
    context_tokens: int = 4096
    most_gap_s: float = 0.05

    @property
    def prompt_tokens(self) -> int:
        return self.image_tokens + self.text_tokens


@dataclass(frozen=True)
class Capacity:
    """What one card does: the slots it holds, the rows that keep the allowed gap, and the most requests and tokens a
    second."""

    slots: int
    rows: int
    requests_per_s: float
    tokens_per_s: float
    image_tokens_per_s: float
    first_token_s: float
    """Of a request that need not wait: its image and prompt, beside full rows."""


def slots_of(gpu: Gpu, precision: str, context_tokens: int) -> int:
    """The most slots whose memory plan fits; 0 where the weights alone do not."""

    def is_too_many(slots: int) -> bool:
        settings = EngineSettings(
            device="cuda", slots=slots, warm_rows=max(1, slots // 4), context_tokens=context_tokens
        )
        kv = element_bytes("bf16", "cuda")  # activations and KV stay in 16 bits on a card, whatever the weights
        plan = memory_plan(MODEL, settings, int(WEIGHT_BYTES[precision]), kv, int(gpu.memory_gib * _GIB))
        return plan.total > plan.available

    return bisect_left(range(1, _MOST_SLOTS + 1), True, key=is_too_many)


def text_parameters() -> float:
    """Weights that every token is multiplied with: the head is one of them, the embeddings are not."""
    text = MODEL.text
    attention = 2 * text.hidden * text.head_dim * (text.heads + text.kv_heads)
    return text.layers * (attention + 3 * text.hidden * text.ffn) + text.hidden * text.vocabulary


def step_times(gpu: Gpu, precision: str, context_tokens: int) -> StepTimes:
    """Weights are read once a step; each row reads its KV and multiplies, and so does each prompt token.

    Reading and multiplying are added, though a card does both at once: the estimate is on the slow side.
    """
    text, bytes_per_s, flops = MODEL.text, gpu.bandwidth_gb_s * 1e9 * BANDWIDTH_SHARE, gpu.tflops * 1e12 * FLOPS_SHARE
    kv_bytes = context_tokens * 2 * text.layers * text.kv_heads * text.head_dim * element_bytes("bf16", "cuda")
    token_s = 2 * text_parameters() / flops
    weights_s = text_parameters() * BYTES_A_PARAMETER[precision] / bytes_per_s
    return StepTimes(weights_s, kv_bytes / bytes_per_s + token_s, weights_s, token_s)


def image_s(gpu: Gpu, tokens: int) -> float:
    """The encoder's time for an image of so many tokens: its blocks' weights and, between all patches, attention."""
    vision = MODEL.vision
    patches = tokens * vision.merge_size**2
    block = 4 * vision.hidden**2 + 3 * vision.hidden * vision.out_hidden
    merger = vision.out_hidden * (vision.out_hidden + 3 * vision.ffn) + vision.merge_size**2 * vision.hidden * 4096
    operations = 2 * patches * vision.depth * (block + 2 * patches * vision.hidden) + 2 * tokens * merger
    return operations / (gpu.tflops * 1e12 * FLOPS_SHARE)


def prefill_s(times: StepTimes, prompt_tokens: int) -> float:
    """Prefill runs in chunks, and each chunk reads the weights again."""
    chunks = math.ceil(prompt_tokens / _CHUNK_TOKENS)
    return chunks * times.prefill_s + prompt_tokens * times.token_s


def requests_per_s(times: StepTimes, rows: int, prompt_tokens: int, answer_tokens: int, image_s: float) -> float:
    """Requests a second when all rows are always full: each costs its image, its prompt and its share of steps."""
    steps_s = (answer_tokens - 1) * times.decode(rows)
    return rows / (rows * (image_s + prefill_s(times, prompt_tokens)) + steps_s)


def capacity(gpu: Gpu, precision: str, demand: Demand = Demand()) -> Capacity | None:  # it is frozen
    """None where the weights do not fit, or one row is too slow already."""
    slots = slots_of(gpu, precision, demand.context_tokens)
    times = step_times(gpu, precision, demand.prompt_tokens + demand.answer_tokens // 2)
    fast = [rows for rows in range(1, slots + 1) if times.decode(rows) <= demand.most_gap_s]
    if not fast:
        return None
    rows, encode_s = fast[-1], image_s(gpu, demand.image_tokens)
    most = requests_per_s(times, rows, demand.prompt_tokens, demand.answer_tokens, encode_s)
    return Capacity(
        slots=slots,
        rows=rows,
        requests_per_s=most,
        tokens_per_s=most * demand.answer_tokens,
        image_tokens_per_s=most * demand.image_tokens,
        first_token_s=encode_s + prefill_s(times, demand.prompt_tokens) + times.decode(rows),
    )


def gpus_for(requests_per_s: float, one: Capacity, load: float = 0.7) -> int:
    """Cards for so many requests a second at this share of what one can do at most; docs/scaling.md says why 0.7."""
    return math.ceil(requests_per_s / (load * one.requests_per_s))
