"""The engine on TensorRT for RTX, on a fake of that library which computes: the same numbers as ONNX Runtime's decoder.

What the fake cannot show is a GPU: whether the library's kernels compute this, and how fast.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from fake_tensorrt_rtx import FakeStream, FakeTensorRtRtx
from shared_builds import DEMO, build_of_demo, copied

from demo.golden_set import parity_cases
from export.checkpoint.weights import Weights
from export.graph.decoder import Part, decoder_graph
from export.graph.standard_ops import share, weights_in_files
from export.precision import FP32, Numbers
from export.rtx.profiles import EngineSizes, decoder_sizes
from glmserve.build.manifest import Manifest, decoder_in
from glmserve.engine.logit_edits import Edits
from glmserve.engine.runtime.decoder import Sampled, Step
from glmserve.engine.runtime.ort_decoder import OrtDecoder
from glmserve.engine.runtime.rtx.decoder import RtxDecoder
from glmserve.engine.runtime.rtx.engine import PlanEngine
from glmserve.engine.runtime.rtx.kernel_cache import KernelCache
from glmserve.engine.runtime.sampling import Draw, sampler_inputs
from glmserve.errors import BadArtifact
from glmserve.model.config import Checkpoint
from glmserve.sampling_parameters import Sampling

SIZES = EngineSizes(rows=4, context=96, chunk_tokens=48)
ROWS = 6
PARTS = {
    "one engine": [Part(0, 4, embeds=True, draws=True)],
    "three engines": [Part(0, 2, True, False), Part(2, 4, False, False), Part(4, 4, False, True)],
    "six engines": [
        Part(0, 0, True, False),
        *(Part(index, index + 1, False, False) for index in range(4)),
        Part(4, 4, False, True),
    ],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(build_of_demo(), tmp_path_factory.mktemp("builds"))


@pytest.fixture(scope="module")
def checkpoint(made: Path) -> Checkpoint:
    return Checkpoint.read(made / "checkpoint")


class Rig:
    """Both decoders on one build; every step runs on both."""

    def __init__(
        self,
        made: Path,
        checkpoint: Checkpoint,
        parts: list[Part],
        buckets: tuple[int, ...] = (),
        stream: FakeStream | None = None,
        numbers: Numbers = FP32,
    ) -> None:
        self.stream = stream or FakeStream()
        trt = FakeTensorRtRtx(decoder_sizes(SIZES, checkpoint.text))
        runtime, self.cache = trt.Runtime(None), KernelCache.of(made, "1.7.1.116", "8.9")
        plans = [_plan(made, checkpoint, part, number, numbers) for number, part in enumerate(parts)]
        engines = [PlanEngine(trt, runtime, plan, self.cache) for plan in plans]
        self.rtx = RtxDecoder(engines, checkpoint, ROWS, 1, self.stream, self.cache, buckets)
        self.ort = OrtDecoder(decoder_in(made), checkpoint, ROWS, SIZES.context, buckets=buckets)

    def run(self, step: Step) -> Sampled:
        found, expected = self.rtx.run(step), self.ort.run(step)
        assert found.tokens.tolist() == expected.tokens.tolist()
        assert found.logprob_ids.tolist() == expected.logprob_ids.tolist()
        np.testing.assert_allclose(found.logprob_values, expected.logprob_values, atol=1e-4)
        return found

    def step(self, input_ids: np.ndarray, at: np.ndarray, drawn: np.ndarray, draws: list[Draw] | None = None) -> Step:
        draws = draws or [Draw(Sampling(logprobs=True, temperature=1.0, seed=3))] * len(drawn)
        sampler = sampler_inputs(draws, self.rtx.candidates, self.rtx.vocabulary)
        return Step.drawing(input_ids, np.broadcast_to(at, (3, len(at))).astype(np.int64), drawn, sampler)

    def prefill(self, row: int, start: int, new: int, features: np.ndarray | None = None) -> Sampled:
        tokens = np.arange(start + 10 * row, start + 10 * row + new)
        step = self.step(tokens, np.arange(start, start + new), np.array([new - 1]))
        return self.run(
            replace(
                step,
                first_row=row,
                features=features,
                image_slot=np.zeros(new, np.int64) if features is None else np.arange(new) % len(features),
                chunk_lengths=np.array([start], np.int32),
                chunk_new=np.array([new]),
            )
        )

    def decode(self, lengths: list[int], draws: list[Draw] | None = None) -> Sampled:
        held = np.array(lengths, np.int32)
        step = self.step(held.astype(np.int64) + 7, held, np.arange(len(lengths)), draws)
        parked = np.zeros(self.rtx.rows - len(lengths), np.int32)
        return self.run(replace(step, lengths=held, parked=parked))


def _plan(made: Path, checkpoint: Checkpoint, part: Part, number: int, numbers: Numbers) -> Path:
    """A "plan" that the fake loads: the path of the part's graph, beside the build's weights."""
    own = decoder_in(made)
    model = decoder_graph(checkpoint, Weights.open(DEMO), numbers, is_standard=True, part=part, context=SIZES.context)
    share(model, weights_in_files(ir.load(own)))
    graph = own.with_name(f"part-{part.first}-{part.last}-{part.embeds}-{part.draws}.onnx")
    ir.save(model, graph)
    graph = Path(shutil.move(graph, graph.with_name(f".{graph.name}")))  # the build stays what its manifest says
    plan = graph.with_suffix(f".{number}.plan")
    plan.write_text(str(graph))
    return plan


@pytest.mark.parametrize(
    ("parts", "buckets"), [(PARTS["one engine"], ()), (PARTS["three engines"], ()), (PARTS["six engines"], (1, 2, 4))]
)
def test_it_samples_what_onnx_runtime_samples(
    made: Path, checkpoint: Checkpoint, parts: list[Part], buckets: tuple[int, ...]
) -> None:
    rig = Rig(made, checkpoint, parts, buckets)
    rig.rtx.warm_up()
    features = np.random.default_rng(1).standard_normal((9, checkpoint.text.hidden)).astype(np.float32)
    rig.prefill(0, 0, 20, features)
    rig.prefill(0, 20, 13)
    rig.prefill(1, 0, 48)
    rig.prefill(2, 0, 3)
    for extra in range(6):
        rig.decode([33 + extra, 48 + extra, 3 + extra])
    rig.decode([39])
    if buckets:
        assert rig.rtx.captures_graphs and rig.stream.replays >= 5


@pytest.mark.parametrize(("bits", "near"), [(8, 0.1), (4, 1.5)])
def test_rounded_weights_give_nearly_the_same_log_probabilities(
    made: Path, checkpoint: Checkpoint, bits: int, near: float
) -> None:
    rig = Rig(made, checkpoint, PARTS["three engines"], numbers=Numbers(bits=bits))
    asked = np.array(next(case for case in parity_cases() if case.name == "text_only").input_ids)
    step = rig.step(asked, np.arange(len(asked)), np.array([len(asked) - 1]))
    step = replace(step, chunk_lengths=np.zeros(1, np.int32), chunk_new=np.array([len(asked)]))
    found, right = rig.rtx.run(step), rig.ort.run(step)
    difference = np.abs(found.logprob_values[:, 1:6] - right.logprob_values[:, 1:6]).max()
    assert 0 < difference < near, difference


def test_rows_decode_beside_a_chunk_and_beside_drafts(made: Path, checkpoint: Checkpoint) -> None:
    rig = Rig(made, checkpoint, PARTS["three engines"], (1, 2, 4))
    rig.prefill(0, 0, 11)
    rig.prefill(1, 0, 5)
    tokens = np.array([3, 4, 20, 21, 22, 23])
    step = rig.step(tokens, np.array([11, 5, 0, 1, 2, 3]), np.array([0, 1, 5]))
    rig.run(
        replace(
            step,
            lengths=np.array([11, 5], np.int32),
            first_row=2,
            chunk_lengths=np.zeros(1, np.int32),
            chunk_new=np.array([4]),
        )
    )
    drafted = rig.step(np.array([5, 6, 7, 8, 9]), np.array([12, 6, 4, 7, 8]), np.arange(5))
    rig.run(replace(drafted, lengths=np.array([12, 6, 4], np.int32), draft_row=1))
    alone = rig.step(np.array([5, 8, 9]), np.array([13, 14, 15]), np.arange(3))
    rig.run(replace(alone, lengths=np.array([13], np.int32), draft_row=0))
    rig.decode([16, 9, 5])


def test_several_fresh_prompts_are_read_together(made: Path, checkpoint: Checkpoint) -> None:
    rig = Rig(made, checkpoint, PARTS["three engines"])
    new = np.array([5, 9, 2])
    step = rig.step(np.arange(16), np.concatenate([np.arange(n) for n in new]), np.cumsum(new) - 1)
    rig.run(replace(step, chunk_lengths=np.zeros(3, np.int32), chunk_new=new))
    rig.decode([5, 9, 2])


def test_a_moved_row_goes_on_where_it_stood(made: Path, checkpoint: Checkpoint) -> None:
    rig = Rig(made, checkpoint, PARTS["three engines"])
    rig.prefill(3, 0, 17)
    for decoder in (rig.rtx, rig.ort):
        decoder.move(3, 0, 17)
    rig.decode([17])


def test_penalties_grammars_and_seeds_reach_the_device(made: Path, checkpoint: Checkpoint) -> None:
    rig = Rig(made, checkpoint, PARTS["one engine"], (1, 2, 4))
    rig.prefill(0, 0, 8)
    rig.prefill(1, 0, 8)
    mask = np.zeros(checkpoint.text.vocabulary, np.bool_)
    mask[[5, 77]] = True
    draws = [
        Draw(Sampling(temperature=0.7, seed=5), 2, Edits(np.arange(1, 4), *np.float32([[1.3] * 3, [-0.5, 0, 9]]))),
        Draw(Sampling(), mask=mask),
    ]
    for extra in range(3):
        sampled = rig.decode([8 + extra, 8 + extra], draws)
        assert sampled.tokens[1] in (5, 77)


def test_only_what_changes_is_sent_in_a_decode_step(made: Path, checkpoint: Checkpoint) -> None:
    rig = Rig(made, checkpoint, PARTS["one engine"], (1, 2, 4))
    rig.prefill(0, 0, 8)
    greedy = [Draw(Sampling())]
    for extra in range(3):
        rig.stream.sent.clear()
        rig.decode([8 + extra], greedy)
    assert len(rig.stream.sent) <= 4, rig.stream.sent  # token, position, length, and the most of all lengths


def test_where_nothing_can_be_captured_steps_are_launched(made: Path, checkpoint: Checkpoint) -> None:
    rig = Rig(made, checkpoint, PARTS["three engines"], (1, 2, 4), FakeStream(refuses_captures=True))
    rig.prefill(0, 0, 8)
    for extra in range(3):
        rig.decode([8 + extra])
    assert not rig.rtx.captures_graphs and not rig.stream.replays


def test_more_slots_than_the_engines_take_are_refused_with_both_remedies(made: Path, checkpoint: Checkpoint) -> None:
    with pytest.raises(BadArtifact, match=r"decode 4 requests .* is 8: set GLM_ENGINE_SLOTS=4, or .*--slots 8"):
        Rig(made, checkpoint, PARTS["one engine"], (1, 2, 4, 8))


def test_compiled_kernels_are_kept_beside_the_build_for_the_next_start(
    made: Path, checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    kept = made.parent / "engines" / made.name / "rtx-sm89-1.7.1.116.kernels"
    kept.unlink(missing_ok=True)
    Rig(made, checkpoint, PARTS["one engine"]).rtx.warm_up()
    assert kept.read_bytes() == b"kernels"
    kept.write_bytes(b"another driver's")
    Rig(made, checkpoint, PARTS["one engine"]).rtx.warm_up()
    assert kept.read_bytes() == b"kernels" and "another GPU, driver or version" in caplog.text
    Manifest.read(made).check(made)


def test_where_kernels_cannot_be_kept_the_engine_starts_all_the_same(
    made: Path, checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    kept = made.parent / "engines"
    shutil.rmtree(kept, ignore_errors=True)
    kept.write_text("a file where a folder should be")
    try:
        Rig(made, checkpoint, PARTS["one engine"]).rtx.warm_up()
    finally:
        kept.unlink()
    assert "cannot be kept" in caplog.text
