"""A build as the engine runs it, opened up so that every stage's numbers can be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from PIL import Image

from export.precision import Precision, Target, numbers_of
from export.verify.tolerances import tolerances_of
from glmserve.build.manifest import CHECKPOINT_FOLDER, Manifest, decoder_in, vision_in
from glmserve.contract import DecoderGraph
from glmserve.engine.preprocessor import prompt_arrays
from glmserve.engine.request import Prompt
from glmserve.engine.runtime.decoder import Step
from glmserve.engine.runtime.device import DeviceName, open_device
from glmserve.engine.runtime.ort_decoder import OrtDecoder, OrtVision
from glmserve.engine.runtime.sampling import Draw, sampler_inputs
from glmserve.engine.step_builder import images_in
from glmserve.engine.vision.encode_queue import image_key
from glmserve.errors import BadArtifact
from glmserve.model.chat_template import PromptBuilder
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid, ImageRules, patches_of
from glmserve.model.position_embedding import vision_arrays
from glmserve.model.tokenizer import Tokenizer
from glmserve.sampling_parameters import Sampling

Shown = Image.Image | tuple[Image.Image, Image.Image]
"""A still image, or two frames of a video."""


class Candidate:
    """One build's stages, run with the engine's own session and arrays on a device of this machine."""

    def __init__(self, build: Path, slots: int, context: int, device: DeviceName = "cpu") -> None:
        folder, manifest = build / CHECKPOINT_FOLDER, Manifest.read(build)
        _check_runs_on(device, manifest)
        self.checkpoint = Checkpoint.read(folder)
        self.tolerances = tolerances_of(manifest, self.checkpoint)
        self.tokenizer = Tokenizer.read(folder)
        self.prompts = PromptBuilder.read(
            folder, self.tokenizer, self.checkpoint.image_token_id, self.checkpoint.vision.merge_size
        )
        runs_on = open_device(device)
        self._vision = OrtVision(vision_in(build), device=runs_on)
        graph = decoder_in(build)
        context = min(context, self.checkpoint.text.max_positions)
        self.decoder = OrtDecoder(graph, self.checkpoint, slots, context, device=runs_on, content=_with_logits(graph))

    def normalised(self, image: Shown) -> tuple[np.ndarray, Grid]:
        """Patches f32 [frames * patches, 3, patch * patch] as the folded first layer means them."""
        rules = self.checkpoint.images
        patches, grid = shown_patches(image, rules)
        mean, std = (np.asarray(v, np.float32)[None, :, None] for v in (rules.mean, rules.std))
        channels = patches.reshape(len(patches), 3, -1).astype(np.float32)
        return (channels / np.float32(255) - mean) / std, grid

    def features(self, image: Shown) -> tuple[np.ndarray, Grid]:
        """Features f32 [image tokens, hidden]."""
        patches, grid = shown_patches(image, self.checkpoint.images)
        return self._vision.encode(vision_arrays(patches, grid, self.checkpoint.vision.table_side)), grid

    def prompt(self, input_ids: np.ndarray, images: list[Shown]) -> Prompt:
        read = [self.features(image) for image in images]
        keys = [image_key(features, grid, 0) for features, grid in read]
        return prompt_arrays(self.checkpoint, input_ids, [grid for _, grid in read], [f for f, _ in read], keys)

    def prefill(self, prompt: Prompt, row: int, chunk_tokens: int) -> np.ndarray:
        """Runs a prompt into a row in chunks; logits f32 [chunks, vocabulary] at the end of each."""
        logits = []
        for start in range(0, prompt.length, chunk_tokens):
            part = slice(start, min(start + chunk_tokens, prompt.length))
            new = np.array([part.stop - part.start], np.int64)
            step = self._step(prompt.input_ids[part], prompt.positions[:, part], new - 1)
            (image_slot,), features = images_in([(prompt, part)])
            self.decoder.run(
                replace(
                    step,
                    image_slot=image_slot,
                    features=features,
                    first_row=row,
                    chunk_lengths=np.array([start], np.int32),
                    chunk_new=new,
                )
            )
            logits.append(self._logits()[0])
        return np.stack(logits)

    def decode(self, tokens: list[int], lengths: list[int], deltas: list[int]) -> np.ndarray:
        """Feeds one token to each of the first rows; logits f32 [rows, vocabulary]."""
        rows = len(tokens)
        at = np.asarray(lengths, np.int64) + np.asarray(deltas, np.int64)
        step = self._step(np.asarray(tokens, np.int64), np.broadcast_to(at, (3, rows)), np.arange(rows))
        self.decoder.run(replace(step, lengths=np.asarray(lengths, np.int32)))
        return self._logits()

    def answer(self, prompt: Prompt, max_tokens: int) -> list[int]:
        """Greedy new tokens in row 0, an ending eos token included, as `generate` returns them."""
        logits = self.prefill(prompt, row=0, chunk_tokens=prompt.length)[-1]
        tokens = [int(np.argmax(logits))]
        while len(tokens) < max_tokens and tokens[-1] not in self.checkpoint.eos_token_ids:
            length = prompt.length + len(tokens) - 1
            logits = self.decode([tokens[-1]], [length], [prompt.delta])[0]
            tokens.append(int(np.argmax(logits)))
        return tokens

    def logits_along(self, prompt: Prompt, answer: list[int], chunk_tokens: int) -> np.ndarray:
        """Logits f32 [tokens, vocabulary] at each place of a given answer, what stands before it being given."""
        logits = [self.prefill(prompt, row=0, chunk_tokens=chunk_tokens)[-1]]
        for index, token in enumerate(answer[:-1]):
            logits.append(self.decode([token], [prompt.length + index], [prompt.delta])[0])
        return np.stack(logits)

    def likeliest(self, prompt: Prompt, answer: list[int]) -> np.ndarray:
        """The token i64 [tokens] found likeliest at each of these places."""
        return np.asarray(np.argmax(self.logits_along(prompt, answer, prompt.length), axis=-1))

    def poison(self) -> None:
        """Fills the KV rows with NaN, so that a read of anything not written shows."""
        self.decoder.poison()

    def _step(self, input_ids: np.ndarray, positions: np.ndarray, drawn: np.ndarray) -> Step:
        """A step that draws after the tokens `drawn`, with nobody in either group yet."""
        sampler = sampler_inputs([Draw(Sampling())] * len(drawn), self.decoder.candidates, self.decoder.vocabulary)
        return Step.drawing(input_ids, positions, drawn, sampler)

    def _logits(self) -> np.ndarray:
        assert self.decoder.logits is not None
        return self.decoder.logits.copy()


def shown_patches(image: Shown, rules: ImageRules) -> tuple[np.ndarray, Grid]:
    """Patches u8 [frames * patches, patch_bytes] and their grid."""
    if isinstance(image, Image.Image):
        return patches_of(image, rules)
    read = [patches_of(frame, rules) for frame in image]
    return np.concatenate([patches for patches, _ in read]), replace(read[0][1], frames=len(read))


def _check_runs_on(device: DeviceName, manifest: Manifest) -> None:
    """Raises BadArtifact for a build whose numbers the processor's operators do not take."""
    numbers = numbers_of(Precision(manifest.precision), Target(manifest.target))
    if device == "cpu" and numbers.real == ir.DataType.BFLOAT16:
        raise BadArtifact(
            f"Build {manifest.digest} ({manifest.precision} for CUDA) computes in bf16, and ONNX Runtime has no bf16 "
            "attention for the CPU: leave --device out, on a machine with a GPU."
        )


def _with_logits(graph: Path) -> bytes:
    """The same graph with its logits as one more output; serving leaves them on the device."""
    model = ir.load(graph)
    values = {value.name: value for node in model.graph for value in node.outputs}
    model.graph.outputs.append(values[DecoderGraph.LOGITS])
    content: bytes = ir.to_proto(model).SerializeToString()
    return content
