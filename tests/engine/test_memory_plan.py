"""What cannot fit is refused before it is loaded, with the plan and the remedies; metrics add up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from real_checkpoint import REAL, needs_real
from safetensors.numpy import save_file

from glmserve.engine.memory_plan import MemoryPlan, element_bytes, fitted, memory_plan, weight_bytes
from glmserve.engine.metrics import ALL_METRICS, DECODE_STEPS, RUNNING, TOKEN_GAP, Meter
from glmserve.engine.settings import EngineSettings
from glmserve.errors import DoesNotFit
from glmserve.model.config import Checkpoint

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
GIB = 1024**3


def test_the_plan_names_what_is_too_much_and_what_to_lower() -> None:
    plan = memory_plan(Checkpoint.read(DEMO), EngineSettings(), 8 * GIB, 4, 4 * GIB)
    with pytest.raises(DoesNotFit, match=r"weights 8,192.*GLM_ENGINE_SLOTS"):
        plan.check()
    replace(plan, weights=0).check()


@pytest.mark.parametrize(
    ("chosen", "rows_that_fit", "taken"),
    [
        ({}, 20, (16, 4)),
        ({}, 19, (15, 4)),
        ({}, 9, (7, 2)),
        ({}, 2, (1, 1)),
        ({}, 1, (1, 0)),
        ({"slots": 16}, 17, (16, 1)),
        ({"slots": 16}, 15, (16, 4)),
        ({"warm_rows": 4}, 10, (6, 4)),
        ({"slots": 16, "warm_rows": 4}, 10, (16, 4)),
        ({}, 0, (16, 4)),
    ],
)
def test_where_nobody_chose_how_many_the_engine_takes_as_many_rows_as_fit(
    chosen: dict[str, int], rows_that_fit: int, taken: tuple[int, int]
) -> None:
    """What somebody chose is never lowered: it is refused, with the plan."""

    def plan_of(settings: EngineSettings) -> MemoryPlan:
        return MemoryPlan(
            weights=0, kv=settings.slots + settings.warm_rows, image_cache=0, work=0, available=rows_that_fit
        )

    settings = fitted(EngineSettings(context_tokens=64, **chosen), plan_of)
    assert (settings.slots, settings.warm_rows, settings.context_tokens) == (*taken, 64)


@needs_real
def test_the_real_model_in_int4_is_served_with_default_settings_on_a_machine_of_24_gb() -> None:
    checkpoint, size = Checkpoint.read(REAL), element_bytes("int4", "cpu")

    def plan_of(settings: EngineSettings) -> MemoryPlan:
        return memory_plan(checkpoint, settings, 7_950_000_000, size, 24 * 10**9)

    assert plan_of(EngineSettings()).total > plan_of(EngineSettings()).available
    settings = fitted(EngineSettings(device="cpu"), plan_of)
    plan_of(settings).check()
    assert settings.slots >= 8 and settings.warm_rows >= 2


@needs_real
def test_the_real_model_in_bf16_fits_a_card_of_80_gb_and_not_one_of_24() -> None:
    checkpoint, settings = Checkpoint.read(REAL), EngineSettings(device="cuda")
    weights = 20_585_554_944
    plan = memory_plan(checkpoint, settings, weights, element_bytes("bf16", "cuda"), 80 * GIB)
    assert plan.kv == 20 * 8192 * 40_960  # bytes a token in 16 bits
    plan.check()
    with pytest.raises(DoesNotFit):
        memory_plan(checkpoint, settings, weights, element_bytes("bf16", "cuda"), 24 * GIB).check()


@pytest.mark.parametrize(
    ("precision", "target", "kv", "size"),
    [
        ("fp32", "cpu", "same", 4),
        ("fp32", "cpu", "int8", 1),
        ("bf16", "cuda", "same", 2),
        ("int4", "cpu", "same", 4),
        ("int4", "cuda", "same", 2),
        ("int4", "cuda", "int8", 1),
    ],
)
def test_a_number_of_kv_takes_what_the_graph_keeps_it_in(precision: str, target: str, kv: str, size: int) -> None:
    assert element_bytes(precision, target, kv) == size


@pytest.mark.parametrize(("slots", "buckets"), [(1, (1,)), (6, (1, 2, 4, 6)), (16, (1, 2, 4, 8, 16))])
def test_buckets_grow_by_powers_of_two_up_to_the_slots(slots: int, buckets: tuple[int, ...]) -> None:
    assert EngineSettings(device="cuda", slots=slots).buckets == buckets
    assert EngineSettings(slots=slots).buckets == ()


def test_a_meter_passes_on_each_thing_once() -> None:
    meter = Meter()
    meter.add(DECODE_STEPS, 3)
    meter.set(RUNNING, 2)
    meter.observe(TOKEN_GAP, 0.5)
    assert meter.take() == [(DECODE_STEPS, 3), (RUNNING, 2), (TOKEN_GAP, 0.5)]
    assert meter.take() == []
    meter.add(DECODE_STEPS)
    meter.set(RUNNING, 0)
    assert meter.take() == [(DECODE_STEPS, 1), (RUNNING, 0)]


def test_every_metric_has_a_name_of_its_own() -> None:
    names = [metric.name for metric in ALL_METRICS]
    assert len(set(names)) == len(names) and all(name.startswith("glm_") for name in names)


def _written(folder: Path, data: int) -> int:
    """The bytes of a decoder that lies beside a checkpoint's file, with so many in a file of its own."""
    folder.mkdir()
    tensors = {
        "model.visual.norm": np.zeros(100, np.uint8),
        "model.language_model.layers.0.self_attn.q_proj.weight": np.zeros((40, 10), np.uint8),
        "model.language_model.layers.0.mlp.down_proj.weight": np.zeros((7, 10), np.uint8),
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "decoder.data").write_bytes(bytes(data))
    return weight_bytes(folder.iterdir())


def test_weights_that_a_decoder_has_joined_in_its_own_file_do_not_count_twice(tmp_path: Path) -> None:
    assert _written(tmp_path / "joined", data=400) == 400 + 70
    assert _written(tmp_path / "apart", data=10) == 10 + 400 + 70
