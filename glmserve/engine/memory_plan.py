"""The memory plan: what weights, KV cache and activations need, computed before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from glmserve.build.manifest import VISION_GRAPH
from glmserve.build.safetensors_header import METADATA, read_header
from glmserve.engine.settings import EngineSettings
from glmserve.errors import DoesNotFit
from glmserve.model.config import Checkpoint, TextModel

_FLOAT = 4
_NOT_THE_DECODERS = (METADATA, "model.visual.")
_JOINED = tuple(f"self_attn.{letter}_proj.weight" for letter in "qkv")
"""Weights that a decoder for CUDA has joined, in a file of its own: it does not load them from the checkpoint's."""
_DECODER_DATA = "decoder.data"
_MIB = 1024**2
_SLOTS_A_WARM_ROW = 4


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the device; the image cache lies in host memory, so it counts only on a CPU."""

    weights: int
    kv: int
    image_cache: int
    work: int
    available: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.image_cache + self.work

    @property
    def text(self) -> str:
        """One line for the log."""
        parts = {
            "weights": self.weights,
            "KV": self.kv,
            "image cache": self.image_cache,
            "work space": self.work,
        }
        listed = ", ".join(f"{name} {size / _MIB:,.0f}" for name, size in parts.items())
        return f"Memory plan in MiB: {listed}; {self.total / _MIB:,.0f} of {self.available / _MIB:,.0f} to be used."

    def check(self) -> None:
        """Raises DoesNotFit, with the plan and the remedies, when the plan exceeds the available memory."""
        if self.total > self.available:
            raise DoesNotFit(
                f"{self.text} Lower GLM_ENGINE_SLOTS, GLM_ENGINE_WARM_ROWS or GLM_ENGINE_CONTEXT_TOKENS, "
                "set GLM_ENGINE_SHORT_TOKENS so that not every slot reserves the whole context, "
                "or export the checkpoint in fewer bits."
            )


def memory_plan(
    checkpoint: Checkpoint, settings: EngineSettings, weights: int, element_bytes: int, total_memory: int
) -> MemoryPlan:
    """The plan for weights of so many bytes, with KV elements of 2 or 4, on a device with `total_memory` bytes."""
    on_host, text = settings.device != "cuda", checkpoint.text
    return MemoryPlan(
        weights=weights,
        kv=kv_tokens(settings, text) * 2 * text.layers * text.kv_heads * text.head_dim * element_bytes,
        image_cache=settings.image_cache_mib * _MIB if on_host else 0,
        work=_decoder_work(checkpoint, settings) + _vision_work(checkpoint, settings),
        available=int(total_memory * settings.memory_utilization),
    )


def kv_tokens(settings: EngineSettings, text: TextModel) -> int:
    """Tokens that the KV cache has room for."""
    long_rows = settings.rows - settings.short_rows
    context = min(settings.context_tokens, text.max_positions)
    return settings.short_rows * settings.short_tokens + long_rows * context


def element_bytes(precision: str, target: str, kv: str = "same") -> int:
    """Bytes of a number of KV in a build; one whose layers are rounded computes in fp32 on CPUs and in bf16 on GPUs."""
    if kv == "int8":
        return 1
    is_half = precision in ("fp16", "bf16") or (precision in ("int8", "int4") and target != "cpu")
    return 2 if is_half else 4


def weight_bytes(files: Iterable[Path]) -> int:
    """Bytes of the graphs and weights among some models' files.

    A checkpoint's file beside the decoder's graph also holds the image encoder, which has a file of its own, and maybe
    weights that the graph has joined in its own file.
    """
    weights = [path for path in files if path.is_file() and path.suffix != ".py"]
    tensors = [_decoder_tensors(path) for path in weights if path.suffix == ".safetensors"]
    total = sum(path.stat().st_size for path in weights if path.suffix != ".safetensors")
    total += sum(size for held in tensors for size in held.values())
    joined = sum(size for held in tensors for name, size in held.items() if name.endswith(_JOINED))
    written = sum(path.stat().st_size for path in weights if path.name == _DECODER_DATA)
    return total - joined if written >= joined else total


def fitted(settings: EngineSettings, plan_of: Callable[[EngineSettings], MemoryPlan]) -> EngineSettings:
    """The settings with as many slots and warm rows as fit. A number that somebody chose stays, and so do both where no
    number fits: the plan then says what is too much."""
    for slots, warm_rows in _rows_to_try(settings):
        fewer = settings.model_copy(update={"slots": slots, "warm_rows": warm_rows})
        plan = plan_of(fewer)
        if plan.total <= plan.available:
            return fewer
    return settings


def _rows_to_try(settings: EngineSettings) -> Iterator[tuple[int, int]]:
    """Slots and warm rows, from the settings' own downwards; of both, the warm rows are a quarter of the slots."""
    slots, warm_rows = settings.slots, settings.warm_rows
    yield slots, warm_rows
    keeps_slots, keeps_warm_rows = ("slots" in settings.model_fields_set, "warm_rows" in settings.model_fields_set)
    if keeps_slots:
        yield from ((slots, fewer) for fewer in range(warm_rows - 1, -1, -1) if not keeps_warm_rows)
    elif keeps_warm_rows:
        yield from ((fewer, warm_rows) for fewer in range(slots - 1, 0, -1))
    else:
        yield from ((fewer, min(warm_rows, -(-fewer // _SLOTS_A_WARM_ROW))) for fewer in range(slots - 1, 0, -1))
        yield 1, 0


def decoders_files(folder: Path) -> list[Path]:
    """What lies in a model version of the engine's, without the image encoder."""
    return [path for path in folder.iterdir() if not path.name.startswith(Path(VISION_GRAPH).stem)]


def _decoder_tensors(path: Path) -> dict[str, int]:
    """Bytes of a safetensors file's tensors by name, without those of the image encoder."""
    _, header = read_header(path)
    places = {name: entry["data_offsets"] for name, entry in header.items() if not name.startswith(_NOT_THE_DECODERS)}
    return {name: end - begin for name, (begin, end) in places.items()}


def _decoder_work(checkpoint: Checkpoint, settings: EngineSettings) -> int:
    """Activations of the largest step (residual, norm, q, attention, output; gate, up, product, sum), 3 of logits.

    On a CPU also the attention scores, which its kernel writes out.
    """
    text = checkpoint.text
    tokens = max(settings.chunk_tokens, settings.slots)
    activations = tokens * (5 * text.hidden + 4 * text.ffn)
    logits = 3 * settings.slots * text.vocabulary
    scores = text.heads * settings.chunk_tokens * settings.context_tokens if settings.device != "cuda" else 0
    return _FLOAT * (activations + logits + scores)


def most_patches(checkpoint: Checkpoint, settings: EngineSettings) -> int:
    """Patches of the largest image that fits the context."""
    images = checkpoint.images
    largest = images.max_pixels // (images.temporal_patch_size * images.patch_size**2)
    return min(largest, settings.context_tokens * images.merge_size**2)


def _vision_work(checkpoint: Checkpoint, settings: EngineSettings) -> int:
    """Activations of that image: residual, norm, q, k, v, attention, output and MLP."""
    vision = checkpoint.vision
    return _FLOAT * most_patches(checkpoint, settings) * (7 * vision.hidden + 3 * vision.out_hidden)
