"""Verifies a build whose checkpoint does not fit in memory: each layer alone, ours and transformers' on one input.

What transformers' layer gives goes on into the next, so that an error shows in the layer it is made in. What ours
gives goes on too, into our own next layer, so that the errors of all layers together are held to the same bounds as
those of a build that is run as a whole. Needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx_ir as ir

from export.checkpoint.formats.opened import open_weights
from export.checkpoint.weights import EMBEDDING, Weights
from export.precision import Precision, Target, numbers_of
from export.verify.candidate import Shown, shown_patches
from export.verify.cases import Case, synthetic_image
from export.verify.comparison import Stage
from export.verify.layer_reference import ReferenceLayers
from export.verify.subgraph import Subgraphs
from export.verify.tolerances import tolerances_of
from glmserve.build.manifest import CHECKPOINT_FOLDER, Manifest, decoder_in, vision_in
from glmserve.contract import (
    COLUMN_WEIGHTS,
    IMAGE_FEATURES,
    IMAGE_PATCHES,
    ROW_WEIGHTS,
    DecoderGraph,
    RowGroup,
)
from glmserve.engine.runtime.device import Host
from glmserve.model.chat_template import ImagePart, Message, Part, PromptBuilder, VideoPart
from glmserve.model.config import Checkpoint, TextModel
from glmserve.model.image_processor import Grid
from glmserve.model.mrope import mrope_positions
from glmserve.model.position_embedding import vision_arrays
from glmserve.model.tokenizer import Tokenizer

_ROWS_AT_ONCE = 8192
_ENCODER, _DECODER = "whole encoder", "encoder and decoder"


def layerwise_stages(build: Path, checkpoint: Path, weights: Weights | None = None) -> Iterator[Stage]:
    """Every stage as it is done, from pixels to logits, over a prompt with an image and a video, and one without.
    `weights` are the checkpoint's, where adapters are merged into them.

    Memory holds one layer in fp32 on either side. Raises BadArtifact when a tensor is missing.
    """
    ours, theirs = _Build(build), ReferenceLayers(checkpoint, weights or open_weights(checkpoint))
    samples = [_Sample(case) for case in _cases(ours.prompts)]
    yield from _compare_vision(ours, theirs, samples)
    theirs.forget_vision()
    for sample in samples:
        yield from _compare_prompt(ours, theirs, sample)
    yield from _compare_layers(ours, theirs, samples)


def must_stream(checkpoint: Path) -> bool:
    """Whether the checkpoint in fp32 twice, as transformers and as a build, is more than this machine may hold."""
    tensors = open_weights(checkpoint).described().values()
    numbers = sum(prod(tensor.shape) for tensor in tensors if tensor.dtype is not None)
    return 2 * numbers * ir.DataType.FLOAT.itemsize > Host().total_memory_bytes()


class _Build:
    """What a build holds; its graphs are run part by part."""

    def __init__(self, build: Path) -> None:
        folder = build / CHECKPOINT_FOLDER
        manifest = Manifest.read(build)
        precision = Precision(manifest.precision)
        self.is_rounded = numbers_of(precision, Target(manifest.target)).bits is not None
        self.checkpoint = Checkpoint.read(folder)
        self.tolerances = tolerances_of(manifest, self.checkpoint)
        self.prompts = PromptBuilder.read(
            folder, Tokenizer.read(folder), self.checkpoint.image_token_id, self.checkpoint.vision.merge_size
        )
        self.decoder = Subgraphs(decoder_in(build))
        self.vision = Subgraphs(vision_in(build))


@dataclass
class _Sample:
    """A conversation on its way through the layers; `state` f32 [tokens, hidden] is what goes into transformers' next,
    `own` what goes into ours."""

    case: Case
    grids: list[Grid] | None = None
    features: np.ndarray | None = None
    input_ids: np.ndarray | None = None
    positions: np.ndarray | None = None
    state: np.ndarray | None = None
    own_features: np.ndarray | None = None
    own: np.ndarray | None = None


@dataclass
class _ImageState:
    """An image on its way through the encoder's blocks; `state` is what goes into transformers' next, `own` what goes
    into ours."""

    name: str
    pixels: np.ndarray
    grid: Grid
    inputs: dict[str, np.ndarray]
    state: np.ndarray
    own: np.ndarray | None = None


def _cases(prompts: PromptBuilder) -> list[Case]:
    """The second image is two frames of a video, where the checkpoint's template takes any."""
    wide, square = synthetic_image(250, 90, 2), synthetic_image(112, 112, 1)
    first: Part = ImagePart()
    second: tuple[Part, Shown] = (ImagePart(), square)
    if prompts.takes_videos:
        second = VideoPart((0.4,)), (square, synthetic_image(112, 112, 4))
    return [
        Case("two images", (Message("user", (first, second[0], "Which one is red?")),), (wide, second[1])),
        Case("system", (Message("system", ("Be brief.",)), Message("user", ("你好",)))),
    ]


def _compare_vision(ours: _Build, theirs: ReferenceLayers, samples: list[_Sample]) -> Iterator[Stage]:
    """The image encoder: what stands before its blocks, each block, and what follows them."""
    theirs.load_vision_ends()
    images = []
    for sample in samples:
        name = sample.case.name
        seen = [_read_image(ours, theirs, f"{name}: image {i}", image) for i, image in enumerate(sample.case.images)]
        sample.grids = [image.grid for image in seen]
        images += seen
    for image in images:
        found = ours.vision.run(image.inputs, ["embed"])[0][0]
        yield _stage(f"{image.name}: patches and positions", found, image.state, ours)
        image.own = found
    for index in range(ours.checkpoint.vision.depth):
        theirs.load_vision_block(index)
        before = "embed" if index == 0 else f"blocks.{index - 1}.mlp.residual"
        for image in images:
            wanted = theirs.vision_block(image.state, image.pixels, image.grid)
            found = _block(ours, image, index, before, image.state)
            yield _stage(f"{image.name}: block {index}", found, wanted, ours)
            assert image.own is not None
            image.state, image.own = wanted, _block(ours, image, index, before, image.own)
    last = f"blocks.{ours.checkpoint.vision.depth - 1}.mlp.residual"
    right, own = [], []
    for image in images:
        assert image.own is not None
        wanted = theirs.features(image.state, image.pixels, image.grid)
        found = ours.vision.run({last: image.state[None]}, [IMAGE_FEATURES.name])[0][0]
        yield _stage(f"{image.name}: features", found, wanted, ours)
        found, tolerances = ours.vision.run({last: image.own[None]}, [IMAGE_FEATURES.name])[0][0], ours.tolerances
        yield Stage.of(f"{image.name}: {_ENCODER}", found, wanted, tolerances.features, tolerances.is_relative)
        right.append(wanted)
        own.append(found)
    none = np.zeros((1, ours.checkpoint.text.hidden), np.float32)
    for sample in samples:
        count = len(sample.case.images)
        sample.features, right = np.concatenate([none, *right[:count]]), right[count:]
        sample.own_features, own = np.concatenate([none, *own[:count]]), own[count:]


def _block(ours: _Build, image: _ImageState, index: int, before: str, state: np.ndarray) -> np.ndarray:
    """What our encoder's block makes of a state that stands for the graph's value `before`."""
    given = image.inputs | {before: state[None]}
    given = {name: given[name] for name in (before, ROW_WEIGHTS.name, COLUMN_WEIGHTS.name)}
    made: np.ndarray = ours.vision.run(given, [f"blocks.{index}.mlp.residual"])[0][0]
    return made


def _read_image(ours: _Build, theirs: ReferenceLayers, name: str, image: Shown) -> _ImageState:
    patches, grid = shown_patches(image, ours.checkpoint.images)
    arrays = vision_arrays(patches, grid, ours.checkpoint.vision.table_side)
    names = (IMAGE_PATCHES.name, ROW_WEIGHTS.name, COLUMN_WEIGHTS.name)
    pixels, their_grids = theirs.processor.pixels([image])
    assert [grid] == their_grids, "both sides resize an image to the same size"
    inputs = {key: array[None] for key, array in zip(names, arrays, strict=True)}
    return _ImageState(name, pixels, grid, inputs, theirs.vision_entry(pixels, grid))


def _compare_prompt(ours: _Build, theirs: ReferenceLayers, sample: _Sample) -> Iterator[Stage]:
    """Tokens, positions and embeddings, none of which may differ."""
    case, merge = sample.case, ours.checkpoint.vision.merge_size
    assert sample.grids is not None and sample.features is not None
    ids = ours.prompts.build(list(case.messages), sample.grids, case.thinking)
    image = ours.checkpoint.image_token_id
    yield Stage.of(f"{case.name}: tokens", ids, theirs.processor.input_ids(case, sample.grids), 0)
    positions, _ = mrope_positions(ids, image, sample.grids, merge)
    yield Stage.of(f"{case.name}: positions", positions, theirs.positions(ids, sample.grids), 0)
    is_word = ids != image
    rows = np.array(ours.decoder.table(EMBEDDING)[ids[is_word]]).astype(np.float32)
    state = theirs.words(ids)
    yield Stage.of(f"{case.name}: embeddings", rows, state[is_word], ours.tolerances.layer, is_relative=True)
    own = state.copy()
    own[is_word] = rows
    assert sample.own_features is not None
    state[~is_word], own[~is_word] = sample.features[1:], sample.own_features[1:]
    sample.input_ids, sample.positions, sample.state, sample.own = ids, positions, state, own


def _compare_layers(ours: _Build, theirs: ReferenceLayers, samples: list[_Sample]) -> Iterator[Stage]:
    """Every decoder layer, then the head on each prompt's last token, after transformers' layers and after ours."""
    text = ours.checkpoint.text
    for index in range(text.layers):
        theirs.load_text_layer(index)
        for sample in samples:
            assert sample.state is not None and sample.own is not None and sample.positions is not None
            wanted = theirs.text_layer(sample.state, sample.positions)
            found = _layer(ours.decoder, text, index, sample.state, sample.positions)
            yield _stage(f"{sample.case.name}: layer {index}", found, wanted, ours)
            sample.state, sample.own = wanted, _layer(ours.decoder, text, index, sample.own, sample.positions)
    tolerances = ours.tolerances
    for sample in samples:
        assert sample.state is not None and sample.own is not None
        wanted = theirs.logits(sample.state[-1])
        yield _stage(f"{sample.case.name}: logits", _logits(ours, sample.state[-1]), wanted, ours)
        found, name = _logits(ours, sample.own[-1]), f"{sample.case.name}: {_DECODER}"
        yield Stage.of(name, found, wanted, tolerances.logits, tolerances.is_relative)
        yield Stage.of_divergence(name, found[None], wanted[None], tolerances.divergence)


def _logits(ours: _Build, last: np.ndarray) -> np.ndarray:
    """Logits f32 [vocabulary] of one state [hidden]. The largest weight is multiplied here, in parts, unless it is
    rounded and so smaller."""
    text = ours.checkpoint.text
    given = {f"layers.{text.layers - 1}.residual": last[None, None]}
    if ours.is_rounded:
        return np.asarray(ours.decoder.run(given, [DecoderGraph.LOGITS])[0][0])
    head = ours.decoder.table(EMBEDDING if text.tied_head else "lm_head.weight")
    normed = ours.decoder.run(given, ["head.norm"])[0][0]
    parts = [
        np.array(head[begin : begin + _ROWS_AT_ONCE]).astype(np.float32) @ normed
        for begin in range(0, len(head), _ROWS_AT_ONCE)
    ]
    return np.asarray(np.concatenate(parts))


def _layer(decoder: Subgraphs, text: TextModel, index: int, state: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """A layer's output: between layers the graph keeps the sum's two parts, which the next one's norm adds."""
    tokens = len(state)
    given: dict[str, np.ndarray] = {
        DecoderGraph.POSITION_IDS: positions,
        DecoderGraph.PLACES: 1 + np.arange(tokens),
        **_group(decoder, text, index, DecoderGraph.DECODED, 1),  # the stray row
        **_group(decoder, text, index, DecoderGraph.CHUNK, tokens),
    }
    if index == 0:
        given["embed"] = state[None]
    else:
        before = f"layers.{index - 1}.mlp"
        given |= {f"{before}.norm.residual": state[None], before: np.zeros_like(state)[None]}
    # a graph for CUDA takes these from the first layer's KV
    rooms = {"rope.decoded_room": 1, "rope.chunk_room": tokens}
    given |= {name: np.array([size]) for name, size in rooms.items() if decoder.makes(name)}
    is_last = index == text.layers - 1
    if is_last:
        given[DecoderGraph.LOGITS_INDEX] = np.arange(tokens)
    layer = f"layers.{index}"
    wanted = [f"{layer}.residual"] if is_last else [f"{layer}.mlp.norm.residual", f"{layer}.mlp"]
    return np.asarray(np.sum(decoder.run(given, wanted), axis=0)[0])


def _group(decoder: Subgraphs, text: TextModel, layer: int, names: RowGroup, tokens: int) -> dict[str, np.ndarray]:
    """One fresh row that is fed the first tokens, and its room."""
    shape = (1, text.kv_heads, tokens, text.head_dim)
    return {
        names.index: np.arange(tokens)[None],
        names.seqlens_k: np.array([tokens - 1], np.int32),
        names.total_length: np.array(tokens, np.int32),
        **{name: np.zeros(shape, decoder.input_dtype(name)) for name in names.past(layer)},
    }


def _stage(name: str, found: np.ndarray, wanted: np.ndarray, ours: _Build) -> Stage:
    return Stage.of(name, found, wanted, ours.tolerances.layer, is_relative=True)
