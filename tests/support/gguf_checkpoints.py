"""Writes a checkpoint as llama.cpp's converter writes it: a GGUF file of the text model and one of the image encoder.

The package `gguf` writes the files and rounds to most types. It cannot round to the types with super-blocks, so theirs
are put together here.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file

from glmserve.model.config import Checkpoint, TextModel

if TYPE_CHECKING:
    import gguf

SHARD = "model.safetensors"
_SUPER = 256
_TEXT, _VISION = "model.language_model.", "model.visual."


def publish_gguf(checkpoint: Path, folder: Path, kind: str, head: str | None = None, vision: str = "F16") -> Path:
    """A folder with the small files of a checkpoint and its weights in GGUF; matrices of the text model are of `kind`,
    embeddings and head of `head`, matrices of the image encoder of `vision`."""
    folder.mkdir(parents=True)
    for path in checkpoint.iterdir():
        if path.suffix in (".json", ".jinja"):
            shutil.copyfile(path, folder / path.name)
    shape, tensors = Checkpoint.read(checkpoint).text, load_file(checkpoint / SHARD)
    _write_text(folder / "model.gguf", tensors, shape, kind, head or kind)
    _write_vision(folder / "mmproj-model.gguf", tensors, vision)
    return folder


def _write_text(path: Path, tensors: dict[str, np.ndarray], shape: TextModel, kind: str, head: str) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "glm4")
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.rotary_dim)
    writer.add_rope_dimension_sections([*shape.mrope_section, 0])
    writer.add_token_list([f"token {index}" for index in range(shape.vocabulary)])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GLM4, shape.layers)
    for name, array in tensors.items():
        if name.startswith(_VISION):
            continue
        known = names.get_name(name.replace(_TEXT, "model."), try_suffixes=(".weight", ".bias"))
        assert known is not None, name
        if re.search(r"[qk]_proj\.", name):
            array = for_llama(array, shape)
        chosen = head if known.startswith(("token_embd", "output.")) else kind
        _add(writer, known, array, chosen if array.ndim == 2 else "F32")
    _close(writer)


def _write_vision(path: Path, tensors: dict[str, np.ndarray], kind: str) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "clip")
    writer.add_clip_projector_type("glm4v")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, 64)
    for name, array in tensors.items():
        if not name.startswith(_VISION):
            continue
        known = names.get_name(name.removeprefix("model."), try_suffixes=(".weight", ".bias"))
        assert known is not None, name
        if array.ndim == 5:
            _add(writer, known, array[:, :, 0], "F32")
            _add(writer, f"{known}.1", array[:, :, 1], "F32")
        else:
            is_layer = array.ndim == 2 and "position" not in name
            _add(writer, known, array, kind if is_layer else "F32")
    _close(writer)


def for_llama(array: np.ndarray, shape: TextModel) -> np.ndarray:
    """Rows of queries or keys as the converter orders them: of what rope turns, all even ones and then all odd ones."""
    heads = array.reshape(-1, shape.head_dim, *array.shape[1:])
    turned, rest = heads[:, : shape.rotary_dim], heads[:, shape.rotary_dim :]
    return np.concatenate([turned[:, 0::2], turned[:, 1::2], rest], axis=1).reshape(array.shape)


def _add(writer: gguf.GGUFWriter, name: str, array: np.ndarray, kind: str) -> None:
    import gguf

    numbers = np.ascontiguousarray(array, np.float32)
    writer.add_tensor(name, quantised(numbers, kind), raw_dtype=gguf.GGMLQuantizationType[kind])


def _close(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantised(numbers: np.ndarray, kind: str) -> np.ndarray:
    """Numbers f32 [rows, in] as bytes u8 of a type, or as plain numbers."""
    if kind == "Q4_K":
        return _q4_k(numbers)
    if kind == "Q5_K":
        return _q5_k(numbers)
    if kind == "Q6_K":
        return _q6_k(numbers)
    import gguf

    return gguf.quants.quantize(numbers, gguf.GGMLQuantizationType[kind])


def _with_least(numbers: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Codes [n, 8, 32] up to `most` of super-blocks, six bits [n, 12 bytes] of scales and least values, and the two
    half floats [n, 2 bytes] that these are multiplied by."""
    blocks = numbers.reshape(-1, 8, 32)
    least = -np.minimum(blocks.min(axis=-1), 0)
    scales = np.maximum(blocks.max(axis=-1) + least, 1e-6) / most
    d, dmin = ((each.max(axis=-1, keepdims=True) / 63).astype(np.float16) for each in (scales, least))
    sc = np.clip(np.rint(scales / np.maximum(d.astype(np.float32), 1e-9)), 1, 63).astype(np.uint8)
    m = np.clip(np.rint(least / np.maximum(dmin.astype(np.float32), 1e-9)), 0, 63).astype(np.uint8)
    step = (d.astype(np.float32) * sc)[..., None]
    codes = np.clip(np.rint((blocks + (dmin.astype(np.float32) * m)[..., None]) / step), 0, most).astype(np.uint8)
    packed = np.concatenate(
        [
            sc[:, :4] | (sc[:, 4:] >> 4 << 6),
            m[:, :4] | (m[:, 4:] >> 4 << 6),
            (sc[:, 4:] & 15) | ((m[:, 4:] & 15) << 4),
        ],
        axis=-1,
    )
    return codes, packed, d.view(np.uint8), dmin.view(np.uint8)


def _q4_k(numbers: np.ndarray) -> np.ndarray:
    codes, packed, d, dmin = _with_least(numbers, 15)
    nibbles = (codes[:, 0::2] | (codes[:, 1::2] << 4)).reshape(len(codes), -1)
    return np.concatenate([d, dmin, packed, nibbles], axis=-1).reshape(len(numbers), -1)


def _q5_k(numbers: np.ndarray) -> np.ndarray:
    codes, packed, d, dmin = _with_least(numbers, 31)
    low = codes & 15
    nibbles = (low[:, 0::2] | (low[:, 1::2] << 4)).reshape(len(codes), -1)
    high = np.packbits(codes.swapaxes(1, 2) >> 4, axis=-1, bitorder="little")[..., 0]
    return np.concatenate([d, dmin, packed, high, nibbles], axis=-1).reshape(len(numbers), -1)


def _q6_k(numbers: np.ndarray) -> np.ndarray:
    blocks = numbers.reshape(-1, 16, 16)
    scales = np.maximum(np.abs(blocks).max(axis=-1), 1e-6) / 31
    d = (scales.max(axis=-1, keepdims=True) / 127).astype(np.float16)
    sc = np.clip(np.rint(scales / np.maximum(d.astype(np.float32), 1e-9)), 1, 127).astype(np.int8)
    codes = np.clip(np.rint(blocks / (d.astype(np.float32) * sc)[..., None]) + 32, 0, 63).astype(np.uint8)
    halves = codes.reshape(-1, 2, 4, 32)  # 128 numbers, in four rows of 32
    low = (halves & 15).reshape(-1, 2, 2, 64)
    low = low[:, :, 0] | (low[:, :, 1] << 4)
    high = halves >> 4
    high = high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)
    parts = [low.reshape(-1, 128), high.reshape(-1, 64), sc.view(np.uint8), d.view(np.uint8)]
    return np.concatenate(parts, axis=-1).reshape(len(numbers), -1)
