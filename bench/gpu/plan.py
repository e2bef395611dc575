"""What the GPU check measures, what memory allows, and the results of both halves as rows and as lines to read."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.checkpoints.synthetic import Shape
from bench.markdown import columns
from bench.records import Row, rounded
from glmserve.build.manifest import CHECKPOINT_FOLDER, decoder_in
from glmserve.engine.memory_plan import decoders_files, element_bytes, weight_bytes
from glmserve.engine.runtime.device import DeviceName
from glmserve.model.config import Checkpoint

TINY = Shape("gpu-check-tiny", layers=2, ffn=256, vision_depth=1, hidden=128, heads=2, vision_hidden=64, vision_heads=1)
_CARD = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
_CARD_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Plan:
    """Both halves of the check read it as JSON. With `kv` "int8" the KV cache has 8 bits, and only steps are timed."""

    checkpoint: str
    build: str
    image: str
    device: DeviceName
    precision: str
    prompt_tokens: int
    new_tokens: int
    chunk_tokens: int
    least_context: int
    most_context: int
    rows: tuple[int, ...] = (1, 8, 32)
    threads: int = 1
    kv: str = "same"

    @staticmethod
    def read(path: Path) -> Plan:
        values = json.loads(path.read_text("utf-8"))
        return Plan(**values | {"rows": tuple(values["rows"])})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1), "utf-8")


def full_size(checkpoint: Path, build: Path, image: Path) -> Plan:
    """The real model on a GPU: prompts of 512 tokens, 64 new ones, chunks of 256, room for 1,024 and 32,768 tokens."""
    return Plan(str(checkpoint), str(build), str(image), "cuda", "bf16", 512, 64, 256, 1024, 32_768)


def rehearsal(checkpoint: Path, build: Path, image: Path) -> Plan:
    """The same steps in seconds on a CPU: smaller prompts, answers, chunks and room."""
    return Plan(str(checkpoint), str(build), str(image), "cpu", "fp32", 24, 6, 16, 64, 16_384)


@dataclass(frozen=True)
class Limit:
    """What the device's memory allows: every step reads the weights and the KV of its rows once."""

    weights_bytes: float
    kv_token_bytes: float
    bandwidth: float

    @staticmethod
    def of(plan: Plan, bandwidth: float, kv: str = "same") -> Limit:
        build = Path(plan.build)
        text, size = Checkpoint.read(build / CHECKPOINT_FOLDER).text, element_bytes(plan.precision, plan.device)
        looked_up = 0 if text.tied_head else text.vocabulary * text.hidden * size  # a row of it a token, not all
        weights = weight_bytes(decoders_files(decoder_in(build).parent)) - looked_up
        kv_size = element_bytes(plan.precision, plan.device, kv)
        return Limit(weights, 2 * text.layers * text.kv_heads * text.head_dim * kv_size, bandwidth)

    def tokens_per_s(self, rows: int, length: float) -> float:
        """At `length` tokens of KV a row."""
        return rows * self.bandwidth / (self.weights_bytes + rows * length * self.kv_token_bytes)

    def kv_is_in_place(self, plan: Plan, little_room_s: float, much_room_s: float) -> bool:
        """Whether a step with much room takes less than half of what copying that room would add."""
        copy_s = 2 * (plan.most_context - plan.least_context) * self.kv_token_bytes / self.bandwidth
        return much_room_s - little_room_s < copy_s / 2


def card() -> str:
    """Name, driver and memory of the first card, from nvidia-smi."""
    try:
        done = subprocess.run(_CARD, capture_output=True, text=True, timeout=_CARD_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown card (nvidia-smi does not run)"
    return done.stdout.splitlines()[0]


def rows_of(plan: Plan, ours: dict[str, Any], torchs: dict[str, Any] | None) -> list[Row]:
    """One row for each number of rows, with CUDA graphs and without; what holds for all is in each."""
    bandwidth = ours["bandwidth_bytes_per_s"]
    limits = {kv: Limit.of(plan, bandwidth, kv) for kv in ("same", "int8")}
    once = {
        "device": plan.device,
        "card": card() if plan.device == "cuda" else None,
        "precision": plan.precision,
        "bandwidth_gb_per_s": rounded(bandwidth / 1e9),
        "kv_in_place": limits["same"].kv_is_in_place(plan, *ours["kv_step_s"]),
        "kv_step_ms": [rounded(1e3 * seconds) for seconds in ours["kv_step_s"]],
        "vision_patches": ours["vision"]["patches"],
        "vision_ms": rounded(1e3 * ours["vision"]["seconds"]),
    }
    once |= {name: torchs and torchs[name] for name in ("logprob_error", "feature_error", "torch")}
    rows = []
    for index, decoded in enumerate(ours["decoded"]):
        count = decoded["rows"]
        speed = count / decoded["step_s"]
        limit = limits[decoded["kv"]].tokens_per_s(count, plan.prompt_tokens + plan.new_tokens / 2)
        figures = {
            "prefill_tokens_per_s": decoded["prefill_tokens_per_s"],
            "decode_tokens_per_s": speed,
            "limit_tokens_per_s": limit,
            "share_of_limit": speed / limit,
        }
        if torchs:
            alone, together = (torchs["decode_tokens_per_s"][str(number)] for number in (1, count))
            figures |= {
                "transformers_one_at_a_time": alone,
                "transformers_together": together,
                "times_one_at_a_time": speed / alone,
                "changed_share": torchs["changed_share"][index],
                "worst_loss": torchs["worst_loss"][index],
            }
        kind = {name: decoded[name] for name in ("rows", "kv", "cuda_graphs")}
        rows.append(kind | {name: rounded(value) for name, value in figures.items()} | once)
    return rows


_COLUMNS = (
    ("rows", "{rows}"),
    ("KV", "{kv}"),
    ("captured graphs", "{cuda_graphs}"),
    ("prefill, tokens/s", "{prefill_tokens_per_s:,.0f}"),
    ("decode, tokens/s", "{decode_tokens_per_s:,.0f}"),
    ("of at most", "{limit_tokens_per_s:,.0f}"),
    ("share (target at 1 row: 70%)", "{share_of_limit:.0%}"),
    ("transformers one at a time", "{transformers_one_at_a_time:,.0f}"),
    ("times (target at 32 rows: 25)", "{times_one_at_a_time:.1f}"),
    ("together", "{transformers_together:,.0f}"),
    ("tokens that differ", "{changed_share:.1%}"),
    ("less likely to torch by, nats", "{worst_loss:.1e}"),
)
_ONCE = (
    "KV is written {where}: {kv_step_ms[0]:.2f} ms a step with room for {least_context:,} tokens, "
    "{kv_step_ms[1]:.2f} ms for {most_context:,}; memory copies {bandwidth_gb_per_s:,.0f} GB/s; "
    "{vision_patches} patches encoded in {vision_ms:.1f} ms"
)
_ERRORS = (
    "{precision} against torch's {precision}: log-probabilities differ by {logprob_error[median]:.1e} nats (worst "
    "{logprob_error[worst]:.1e}), image features by {feature_error[median]:.1e} (worst {feature_error[worst]:.1e})"
)


def report(plan: Plan, rows: list[Row]) -> str:
    """The rows as a table, and what holds for all of them as sentences."""
    where = "in place" if rows[0]["kv_in_place"] else "COPIED in each step"
    once = _ONCE + (f"\n{_ERRORS}" if rows[0]["logprob_error"] else "")
    return f"{columns(rows, _COLUMNS)}\n" + once.format_map({"where": where} | asdict(plan) | rows[0])
