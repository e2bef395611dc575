"""The capacity model and the simulation agree with what was measured, and with one another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from real_checkpoint import REAL, needs_real

from bench import records
from bench.report import tables
from bench.report.scaling import NEW_TOKENS, PROMPT_TOKENS, modelled_speedup, speedups
from bench.simulation.capacity import (
    GPUS,
    MODEL,
    Demand,
    capacity,
    gpus_for,
    image_s,
    requests_per_s,
    slots_of,
    step_times,
)
from bench.simulation.replica import Machine, Replica, Visit
from bench.simulation.simulate import MACHINE, Workload, capacity_per_s, simulate
from bench.simulation.step_times import StepTimes
from glmserve.model.config import Checkpoint

NEAR = 0.25
STEPS = StepTimes(decode_s=0.0176, row_s=0.00284, prefill_s=0.0, token_s=0.00227)
"""Of a processor much like the one that all this was begun on."""
CARDS = {gpu.name: gpu for gpu in GPUS}


@pytest.mark.slow
def test_the_page_and_its_plot_show_the_committed_results() -> None:
    text = tables.SCALING.read_text("utf-8")
    assert text == tables.rendered(text), "run `.venv/bin/python -m bench report`"
    drawn = tables.charts().get(tables.SCALING_CHART)
    assert drawn is None or tables.SCALING_CHART.read_text("utf-8") == drawn


@pytest.mark.parametrize("row", records.read("steps"), ids=lambda row: row["precision"])
def test_the_model_is_near_what_the_engine_reached_with_the_same_steps(row: records.Row) -> None:
    for count, measured, modelled in speedups(row):
        assert modelled == pytest.approx(measured, rel=NEAR), count


def steps_of(precision: str, cpu: str) -> tuple[StepTimes, float]:
    """Step times, and an image's, measured on a processor of that name."""
    for row in records.read("steps"):
        if (row["precision"], row["run"]["cpu"]) == (precision, cpu):
            return StepTimes(**row["times"]), row["image_s"]
    pytest.skip(f"no steps were measured on {cpu}: run `python -m bench steps` where throughput was measured")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_model_is_near_the_throughput_bench(precision: str) -> None:
    """16 clients over 4: the baseline answers one at a time, so its speed divides out. One client alone is helped by
    speculative decoding, which the model leaves out."""
    rows = {row["clients"]: row for row in records.read("throughput") if row["precision"] == precision}
    times, reading_s = steps_of(precision, rows[1]["run"]["cpu"])
    measured = rows[16]["tokens_per_s_ratio"] / rows[4]["tokens_per_s_ratio"]
    modelled = modelled_speedup(times, 16, reading_s) / modelled_speedup(times, 4, reading_s)
    assert modelled == pytest.approx(measured, rel=NEAR)


@pytest.mark.parametrize("count", [1, 4, 16])
def test_the_simulation_is_near_the_model(count: int) -> None:
    times = STEPS
    replica = Replica(Machine(times, slots=16))
    for _ in range(count):
        replica.arrive(Visit(0.0, PROMPT_TOKENS, NEW_TOKENS, deadline=1000.0), 0.0)
    while (at := replica.next_step_at()) is not None:
        replica.step(at)
    assert [visit.ending for visit in replica.ended] == ["done"] * count
    modelled = count / requests_per_s(times, count, PROMPT_TOKENS, NEW_TOKENS, 0.0)
    assert max(visit.ended_at for visit in replica.ended) == pytest.approx(modelled, rel=NEAR)


@pytest.mark.slow
def test_ten_replicas_below_their_capacity_answer_everything_and_above_it_they_refuse_or_drop() -> None:
    machine, workload = replace(MACHINE, max_waiting=8), Workload((100, 300), (16, 48))
    most = 10 * capacity_per_s(machine, workload)
    easy = simulate(machine, workload, 10, 0.6 * most, seconds=8)
    assert easy.share("done") == 1 and easy.first_token_s(0.95) < 1
    hard = simulate(machine, workload, 10, 2.5 * most, seconds=8)
    assert hard.tokens_per_s > 1.3 * easy.tokens_per_s, "what is refused costs the others nothing"
    assert hard.share("refused") > 0.2
    assert hard.first_token_s(0.5) > easy.first_token_s(0.5)


def test_a_simulation_is_the_same_again_with_the_same_seed() -> None:
    runs = [simulate(MACHINE, Workload(), 3, 6.0, seconds=6, seed=9) for _ in range(2)]
    assert len({(len(run.visits), run.first_token_s(0.95), run.tokens_per_s) for run in runs}) == 1


def test_late_requests_are_dropped_wherever_they_stand() -> None:
    replica = Replica(Machine(STEPS, slots=2))
    for number in range(6):
        replica.arrive(Visit(0.0, PROMPT_TOKENS, 500, deadline=1.0 + number / 10), 0.0)
    while (at := replica.next_step_at()) is not None:
        replica.step(at)
    assert [visit.ending for visit in replica.ended] == ["late"] * 6


def test_a_step_cannot_be_faster_than_memory_allows() -> None:
    for name, tokens_per_s in (("H200", 273), ("H100 SXM", 191), ("RTX 4090", 57), ("A10G", 34)):
        one = 1 / step_times(CARDS[name], "bf16", 0).decode(1)
        assert 0.6 * tokens_per_s < one < 0.72 * tokens_per_s, "the limit at one row, times the share that is reached"


def test_an_image_costs_what_the_architecture_says() -> None:
    card = CARDS["H100 SXM"]
    times, tokens = step_times(card, "bf16", 0), 1369  # 1024x1024
    operations = (image_s(card, tokens) + tokens * times.token_s) * card.tflops * 1e12 * 0.4
    assert operations == pytest.approx(35e12, rel=NEAR)


def test_more_memory_more_slots_and_more_requests_more_cards() -> None:
    assert slots_of(CARDS["RTX 4090"], "bf16", 8192) < 2 <= slots_of(CARDS["RTX 4090"], "int4", 8192)
    assert slots_of(CARDS["H100 SXM"], "bf16", 32_768) < slots_of(CARDS["H200"], "bf16", 32_768)
    one = capacity(CARDS["H100 SXM"], "bf16")
    assert one is not None
    assert gpus_for(0.1, one) == 1 and gpus_for(1000, one) > 5 * gpus_for(100, one)
    tight = capacity(CARDS["H100 SXM"], "bf16", Demand(most_gap_s=0.012))
    assert tight is None or tight.rows < one.rows


@needs_real
def test_the_model_has_the_real_checkpoints_shape() -> None:
    config = json.loads((REAL / "config.json").read_text("utf-8"))
    assert config["text_config"]["num_hidden_layers"] == MODEL.text.layers
    files = {path.name for path in Path(REAL).iterdir()}
    if {"config.json", "preprocessor_config.json"} <= files:
        real = Checkpoint.read(REAL)
        for name in ("layers", "hidden", "ffn", "heads", "kv_heads", "head_dim", "vocabulary", "max_positions"):
            assert getattr(real.text, name) == getattr(MODEL.text, name), name
        assert (real.vision.depth, real.vision.hidden) == (MODEL.vision.depth, MODEL.vision.hidden)
        assert real.images.max_pixels == MODEL.images.max_pixels
