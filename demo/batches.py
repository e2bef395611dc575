"""What one training step sees: rows of pictures of one size with several chats packed behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from demo.lessons.chats import Piece, Said, Shown
from demo.model import PREPROCESSOR, token_id
from demo.pictures.colours import BACKGROUNDS, COLOURS
from demo.pictures.drawing import DIGIT_STROKES, Mark
from demo.pictures.scenes import CELLS, COLUMNS, ROWS, SHAPES, Scene
from glmserve.model.image_processor import Grid, ImageRules, patches_of

RULES = ImageRules(
    patch_size=PREPROCESSOR["patch_size"],
    merge_size=PREPROCESSOR["merge_size"],
    temporal_patch_size=PREPROCESSOR["temporal_patch_size"],
    min_pixels=PREPROCESSOR["size"]["shortest_edge"],
    max_pixels=PREPROCESSOR["size"]["longest_edge"],
    mean=tuple(PREPROCESSOR["image_mean"]),
    std=tuple(PREPROCESSOR["image_std"]),
)
MARK_NAMES = ("", *SHAPES, *DIGIT_STROKES)
MARK_COLOURS = ("", *COLOURS)
PLACES = CELLS + 4  # a cell, or the rank of a digit
# Each label a picture token has, and how many values it takes.
LABELS = {"name": len(MARK_NAMES), "colour": len(MARK_COLOURS), "place": PLACES, "background": len(BACKGROUNDS)}
VERDICT_TOKENS = {"relation": 3, "count": 4}  # the verdict, or the number in its box, with the ending token
VERDICT_WEIGHT = 3.0
SEEN_PART = 0.15  # a token shows a mark when this part of the smaller of the two overlaps


@dataclass(frozen=True)
class Images:
    """Pictures of one grid with the labels of each merged token."""

    grid: Grid
    patches: torch.Tensor  # f32 [pictures, 1 or 2 frames, patches, 588], normalised
    labels: dict[str, torch.Tensor]  # i64 [pictures, tokens] by name in LABELS
    boxes: torch.Tensor  # f32 [pictures, tokens, 4], 0 to 1, of the mark that a token shows


@dataclass(frozen=True)
class Row:
    """A shared beginning, the chats behind it, and its pictures (indices into the batch's images)."""

    shared: list[Piece]
    chats: list[list[Piece]]
    pictures: Sequence[int] = ()


@dataclass(frozen=True)
class Packed:
    """Rows of a shared beginning and several chats; each chat sees the beginning and itself."""

    kinds: list[str]  # of each answer
    ids: torch.Tensor  # i64 [rows, tokens]
    positions: torch.Tensor  # i64 [3, rows, tokens]
    mask: torch.Tensor  # bool [rows, 1, tokens, tokens]
    image_at: torch.Tensor  # i64 [picture tokens] into rows * tokens
    image_from: torch.Tensor  # i64 [picture tokens] into pictures * tokens of a picture
    # One entry for each token to predict: where it is predicted, what it is, its weight, whose answer it is.
    predicted_at: torch.Tensor  # i64 [n] into rows * tokens
    targets: torch.Tensor  # i64 [n]
    weights: torch.Tensor  # f32 [n]
    owners: torch.Tensor  # i64 [n]


class Encoder:
    """Turns text into ids and the spans they stand for, remembering what it has met."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.image_id = token_id(tokenizer, "<|image|>")

        @lru_cache(maxsize=50_000)
        def encode(text: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
            encoding = tokenizer.encode(text)
            return tuple(encoding.ids), tuple(encoding.offsets)

        self.encode = encode


def images_of(
    frames: Sequence[Sequence[Image.Image]], scenes: Sequence[Scene], marks: Sequence[Sequence[Mark]]
) -> Images:
    """Still pictures as lists of one image, pairs of video frames as lists of two; all of one size."""
    grid = Grid(0, 0)
    patches, labels, boxes = [], [], []
    for images, scene, found in zip(frames, scenes, marks, strict=True):
        pixels = []
        for image in images:
            values, grid = patches_of(image, RULES)
            pixels.append(values)
        patches.append(np.stack(pixels))
        label, box = token_labels(scene, found, grid)
        labels.append(label)
        boxes.append(box)
    stacked = {name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in LABELS}
    return Images(grid, normalised(np.stack(patches)), stacked, torch.from_numpy(np.stack(boxes)))


def normalised(patches: NDArray[np.uint8]) -> torch.Tensor:
    """uint8 patches [..., 588] -> f32 with CLIP's mean and deviation."""
    pixels_a_channel = RULES.patch_size**2
    mean = np.repeat(np.asarray(RULES.mean, np.float32), pixels_a_channel)
    std = np.repeat(np.asarray(RULES.std, np.float32), pixels_a_channel)
    return torch.from_numpy((patches.astype(np.float32) / 255 - mean) / std)


def token_labels(
    scene: Scene, marks: Sequence[Mark], grid: Grid
) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.float32]]:
    """What each merged token shows (the mark that covers most of it, or nothing) and where; that mark's box."""
    rows, columns = grid.rows // RULES.merge_size, grid.columns // RULES.merge_size
    height, width = scene.height_px / rows, scene.width_px / columns  # a token, in drawn pixels
    top, left = np.arange(rows)[:, None] * height, np.arange(columns)[None, :] * width
    cell_row = ((top + height / 2) * ROWS / scene.height_px).astype(np.int64)
    cell_column = ((left + width / 2) * COLUMNS / scene.width_px).astype(np.int64)
    names, colours = np.zeros((rows, columns), np.int64), np.zeros((rows, columns), np.int64)
    places = cell_row * COLUMNS + cell_column
    boxes = np.zeros((rows, columns, 4), np.float32)
    most = np.zeros((rows, columns))
    for mark in marks:
        (x, y), (radius_x, radius_y) = mark.centre, mark.radius
        across = np.clip(np.minimum(left + width, x + radius_x) - np.maximum(left, x - radius_x), 0, None)
        down = np.clip(np.minimum(top + height, y + radius_y) - np.maximum(top, y - radius_y), 0, None)
        shared = across * down / max(1.0, min(width * height, 4 * radius_x * radius_y))
        chosen = (shared > SEEN_PART) & (shared > most)
        names[chosen] = MARK_NAMES.index(mark.name)
        colours[chosen] = MARK_COLOURS.index(mark.colour or scene.number_colour)
        places[chosen] = mark.place + (CELLS if scene.number else 0)
        size = scene.width_px, scene.height_px
        boxes[chosen] = [
            (x - radius_x) / size[0], (y - radius_y) / size[1], (x + radius_x) / size[0], (y + radius_y) / size[1]
        ]  # fmt: skip
        most = np.maximum(most, shared)
    background = np.full((rows, columns), BACKGROUNDS.index(scene.background))
    found = {"name": names, "colour": colours, "place": places, "background": background}
    return {name: label.reshape(-1) for name, label in found.items()}, boxes.reshape(-1, 4)


def pack(encoder: Encoder, rows: Sequence[Row], grid: Grid | None) -> Packed:
    """Ids, places, masks and targets of rows whose pictures all have this grid."""
    writers = [_Writer(encoder, row, grid) for row in rows]
    length = max(len(writer.ids) for writer in writers)
    length += -length % 16  # few lengths, so that kernels are met again
    ids = np.zeros((len(rows), length), np.int64)
    parts = np.full((len(rows), length), -1, np.int64)
    places = np.zeros((3, len(rows), length), np.int64)
    image_at: list[int] = []
    image_from: list[int] = []
    predictions: list[tuple[int, int, float, int]] = []
    kinds: list[str] = []
    for i, writer in enumerate(writers):
        n = len(writer.ids)
        ids[i, :n], parts[i, :n], places[:, i, :n] = writer.ids, writer.parts, np.array(writer.places).T
        image_at += [i * length + at for at in writer.image_at]
        image_from += writer.image_from
        predictions += [
            (i * length + at, target, weight, len(kinds) + o) for at, target, weight, o in writer.predictions
        ]
        kinds += writer.kinds
    predicted_at, targets, weights, owners = zip(*predictions, strict=True)
    return Packed(
        kinds=kinds,
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(places),
        mask=block_mask(torch.from_numpy(parts)),
        image_at=torch.tensor(image_at, dtype=torch.long),
        image_from=torch.tensor(image_from, dtype=torch.long),
        predicted_at=torch.tensor(predicted_at),
        targets=torch.tensor(targets),
        weights=torch.tensor(weights),
        owners=torch.tensor(owners),
    )


class _Writer:
    """Writes one row token by token."""

    def __init__(self, encoder: Encoder, row: Row, grid: Grid | None) -> None:
        self.encoder, self.row, self.grid = encoder, row, grid
        self.ids: list[int] = []
        self.parts: list[int] = []
        self.places: list[tuple[int, int, int]] = []
        self.image_at: list[int] = []
        self.image_from: list[int] = []
        self.predictions: list[tuple[int, int, float, int]] = []  # index, target, weight, answer
        self.kinds: list[str] = []
        self.next_place = 0
        for piece in row.shared:
            self._write(piece, 0)
        begin = self.next_place
        for part, chat in enumerate(row.chats, start=1):
            self.next_place = begin
            for piece in chat:
                self._write(piece, part)

    def _write(self, piece: Piece, part: int) -> None:
        if isinstance(piece, Shown):
            self._show(piece.picture, part)
            return
        text = piece.text if isinstance(piece, Said) else piece
        ids, offsets = self.encoder.encode(text)
        if isinstance(piece, Said):
            before = len(self.ids) - 1
            weights = token_weights(piece, offsets)
            self.predictions += [
                (before + i, target, weight, len(self.kinds))
                for i, (target, weight) in enumerate(zip(ids, weights, strict=True))
            ]
            self.kinds.append(piece.kind)
        self.ids += ids
        self.parts += [part] * len(ids)
        self.places += [(at, at, at) for at in range(self.next_place, self.next_place + len(ids))]
        self.next_place += len(ids)

    def _show(self, picture: int, part: int) -> None:
        if self.grid is None:
            raise ValueError("a row shows a picture, but the batch has none")
        down, across = self.grid.rows // RULES.merge_size, self.grid.columns // RULES.merge_size
        n, at = down * across, self.next_place
        self.image_at += range(len(self.ids), len(self.ids) + n)
        self.image_from += range(self.row.pictures[picture] * n, (self.row.pictures[picture] + 1) * n)
        self.ids += [self.encoder.image_id] * n
        self.parts += [part] * n
        self.places += [(at, at + row, at + column) for row in range(down) for column in range(across)]
        self.next_place += max(down, across)


def token_weights(said: Said, offsets: Sequence[tuple[int, int]]) -> list[float]:
    """Long answers weigh a little more than short ones; a verdict outweighs the places that lead to it."""
    length = len(offsets)
    verdict = min(length, VERDICT_TOKENS.get(said.kind, 0))
    weights = [1 / length**0.5] * (length - verdict) + [VERDICT_WEIGHT / length**0.5] * verdict
    for start, end in said.unweighed:
        weights = [0.0 if start <= a and b <= end else w for w, (a, b) in zip(weights, offsets, strict=True)]
    return weights


def block_mask(parts: torch.Tensor) -> torch.Tensor:
    """Who may see whom: bool [rows, 1, tokens, tokens] from parts i64 [rows, tokens] (0 shared, -1 padding)."""
    length = parts.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool).tril()
    same = parts[:, :, None] == parts[:, None, :]
    return (earlier & (same | (parts == 0)[:, None, :]))[:, None]
