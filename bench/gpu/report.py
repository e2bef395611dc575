"""The results of both halves of the GPU check, as rows for the results file and as lines to read."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gpu.plan import Plan
from bench.records import Row, rounded
from glmserve.build.manifest import CHECKPOINT_FOLDER, decoder_in
from glmserve.engine.memory_plan import decoders_files, element_bytes, weight_bytes
from glmserve.model.config import Checkpoint

SHARE_OF_LIMIT_TARGET, TRANSFORMERS_TARGET = 0.7, 25.0
"""Of the memory's limit at one row, and of one request at a time in transformers at 32 rows."""
_CARD = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
_CARD_TIMEOUT_S = 60.0


def card() -> str:
    """Name, driver and memory of the first card, from nvidia-smi."""
    try:
        done = subprocess.run(_CARD, capture_output=True, text=True, timeout=_CARD_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown card (nvidia-smi does not run)"
    return done.stdout.splitlines()[0]


def rows_of(plan: Plan, ours: dict[str, Any], torchs: dict[str, Any] | None) -> list[Row]:
    """One row for each number of rows, with CUDA graphs and without; what holds for all is in each."""
    limits = {kv: Limit.of(plan, ours["bandwidth_bytes_per_s"], kv) for kv in ("same", "int8")}
    once = {
        "device": plan.device,
        "card": card() if plan.device == "cuda" else None,
        "precision": plan.precision,
        "bandwidth_gb_per_s": rounded(ours["bandwidth_bytes_per_s"] / 1e9),
        "kv_in_place": limits["same"].kv_is_in_place(plan, ours["kv"]),
        "kv_step_ms": [rounded(1e3 * seconds) for seconds in ours["kv"].values()],
        "vision_patches": ours["vision"]["patches"],
        "vision_ms": rounded(1e3 * ours["vision"]["seconds"]),
        "logprob_error": torchs and torchs["logprob_error"],
        "feature_error": torchs and torchs["feature_error"],
        "torch": torchs and torchs["torch"],
    }
    rows = []
    for index, decoded in enumerate(ours["decoded"]):
        count = decoded["rows"]
        length, speed = plan.prompt_tokens + plan.new_tokens / 2, count / decoded["step_s"]
        limit = limits[decoded["kv"]].tokens_per_s(count, length)
        row: Row = {
            "rows": count,
            "kv": decoded["kv"],
            "cuda_graphs": decoded["cuda_graphs"],
            "prefill_tokens_per_s": rounded(decoded["prefill_tokens_per_s"]),
            "decode_tokens_per_s": rounded(speed),
            "limit_tokens_per_s": rounded(limit),
            "share_of_limit": rounded(speed / limit),
        }
        if torchs:
            together = next(entry for entry in torchs["speed"] if entry["rows"] == count)["decode_tokens_per_s"]
            alone = torchs["speed"][0]["decode_tokens_per_s"]
            row |= {
                "transformers_one_at_a_time": rounded(alone),
                "transformers_together": rounded(together),
                "times_one_at_a_time": rounded(speed / alone),
                "changed_share": rounded(torchs["changed_share"][index]),
                "worst_loss": rounded(torchs["worst_loss"][index]),
            }
        rows.append(row | once)
    return rows


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
        return Limit(
            weight_bytes(decoders_files(decoder_in(build).parent)) - looked_up,
            2 * text.layers * text.kv_heads * text.head_dim * element_bytes(plan.precision, plan.device, kv),
            bandwidth,
        )

    def tokens_per_s(self, rows: int, length: float) -> float:
        """At `length` tokens of KV a row."""
        return rows * self.bandwidth / (self.weights_bytes + rows * length * self.kv_token_bytes)

    def kv_is_in_place(self, plan: Plan, step_s: dict[str, float]) -> bool:
        """Whether a step with much room takes less than half of what copying that room would add."""
        copy_s = 2 * (plan.most_context - plan.least_context) * self.kv_token_bytes / self.bandwidth
        return step_s["step_s_much_room"] - step_s["step_s_little_room"] < copy_s / 2


def report(plan: Plan, rows: list[Row]) -> list[str]:
    lines = []
    for row in rows:
        graphs = "captured graphs" if row["cuda_graphs"] else "node by node"
        graphs += ", KV in 8 bits" if row["kv"] == "int8" else ""
        line = (
            f"{row['rows']:>2} rows, {graphs}: prefill {row['prefill_tokens_per_s']:,.0f} tokens/s, decode "
            f"{row['decode_tokens_per_s']:,.0f} of at most {row['limit_tokens_per_s']:,.0f} "
            f"({row['share_of_limit']:.0%})"
        )
        if "changed_share" in row:
            line += (
                f"; transformers {row['transformers_one_at_a_time']:,.0f} one at a time "
                f"({row['times_one_at_a_time']:.1f}x), {row['transformers_together']:,.0f} together; "
                f"tokens that differ from torch's {row['changed_share']:.1%}, "
                f"less likely to it by {row['worst_loss']:.1e} nats at most"
            )
        lines.append(line)
    first = rows[0]
    where = "in place" if first["kv_in_place"] else "COPIED in each step"
    lines.append(
        f"KV is written {where}: {first['kv_step_ms'][0]:.2f} ms a step with room for {plan.least_context:,} tokens, "
        f"{first['kv_step_ms'][1]:.2f} ms for {plan.most_context:,}; memory copies "
        f"{first['bandwidth_gb_per_s']:,.0f} GB/s; "
        f"{first['vision_patches']} patches encoded in {first['vision_ms']:.1f} ms"
    )
    if first["logprob_error"]:
        lines.append(
            f"{plan.precision} against torch's {plan.precision}: log-probabilities differ by "
            f"{first['logprob_error']['median']:.1e} nats (worst {first['logprob_error']['worst']:.1e}), "
            f"image features by {first['feature_error']['median']:.1e} (worst {first['feature_error']['worst']:.1e})"
        )
    if plan.device == "cuda":
        lines += _targets(rows)
    return lines


def _targets(rows: list[Row]) -> list[str]:
    best_share = max(row["share_of_limit"] for row in rows if row["rows"] == 1)
    lines = [f"Target at 1 row, {SHARE_OF_LIMIT_TARGET:.0%} of the limit: {best_share:.0%}"]
    if "times_one_at_a_time" in rows[0]:
        best_times = max(row["times_one_at_a_time"] for row in rows if row["rows"] == 32)
        lines.append(f"Target at 32 rows, {TRANSFORMERS_TARGET:.0f}x transformers one at a time: {best_times:.1f}x")
    return lines
