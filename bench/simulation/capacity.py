"""A small model of one GPU serving the real model: slots by the engine's own plan, speeds by bytes and operations."""

from __future__ import annotations

import math
import tomllib
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

from bench.simulation.step_times import StepTimes
from glmserve.engine.memory_plan import element_bytes, memory_plan
from glmserve.engine.settings import EngineSettings
from glmserve.model.config import Checkpoint, TextModel, VisionModel
from glmserve.model.image_processor import ImageRules

_DATA = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
MODEL = Checkpoint(
    TextModel(**_DATA["model"]["text"]),
    VisionModel(**_DATA["model"]["vision"]),
    ImageRules(14, 2, 2, 12_544, 9_633_792, (0.0,) * 3, (1.0,) * 3),
    ImageRules(14, 2, 2, 12_544, 100_352_000, (0.0,) * 3, (1.0,) * 3),
    image_token_id=151_363,
    eos_token_ids=(151_329,),
)
"""The real checkpoint's shape; a test compares it with the real config.json where that lies beside the project."""
PRECISIONS = tuple(_DATA["precisions"])
BANDWIDTH_SHARE = 0.7
FLOPS_SHARE = 0.4
"""The shares of a card's published figures that a step reaches, by assumption: nothing was measured on a card yet."""
_GIB = 1024**3
_CHUNK_TOKENS: int = EngineSettings.model_fields["chunk_tokens"].default
_MOST_SLOTS = 128  # beyond, a card multiplies rather than reads, and more rows gain little
_MOST_SHORT = 1024  # that the settings allow


@dataclass(frozen=True)
class Gpu:
    """A card as its maker publishes it."""

    name: str
    memory_gib: float
    bandwidth_gb_s: float
    tflops: float


GPUS = tuple(Gpu(name, **figures) for name, figures in _DATA["cards"].items())


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
    """What one card does: the rows that keep the allowed gap, and the most requests and tokens a second."""

    rows: int
    requests_per_s: float
    tokens_per_s: float
    image_tokens_per_s: float
    first_token_s: float
    """Of a request that need not wait: its image and prompt, beside full rows."""


def slots_of(gpu: Gpu, precision: str, context_tokens: int, short_tokens: int = 0) -> int:
    """The most slots whose memory plan fits, with short rows of KV where these have a length; 0 where the weights alone
    do not."""

    def is_too_many(slots: int) -> bool:
        settings = EngineSettings(
            device="cuda",
            slots=slots,
            warm_rows=max(1, slots // 4),
            context_tokens=context_tokens,
            short_tokens=short_tokens,
        )
        kv = element_bytes("bf16", "cuda")  # activations and KV stay in 16 bits on a card, whatever the weights
        plan = memory_plan(
            MODEL, settings, int(_DATA["precisions"][precision]["build"]), kv, int(gpu.memory_gib * _GIB)
        )
        return plan.total > plan.available

    most = _MOST_SHORT if short_tokens else _MOST_SLOTS
    return bisect_left(range(1, most + 1), True, key=is_too_many)


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
    weights_s = text_parameters() * _DATA["precisions"][precision]["parameter"] / bytes_per_s
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
        rows=rows,
        requests_per_s=most,
        tokens_per_s=most * demand.answer_tokens,
        image_tokens_per_s=most * demand.image_tokens,
        first_token_s=encode_s + prefill_s(times, demand.prompt_tokens) + times.decode(rows),
    )


def gpus_for(requests_per_s: float, one: Capacity, load: float = 0.7) -> int:
    """Cards for so many requests a second at this share of what one can do at most; docs/scaling.md says why 0.7."""
    return math.ceil(requests_per_s / (load * one.requests_per_s))
