"""A checkpoint of GGUF files: the text model, whole or in parts, and the image encoder's `mmproj` beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from export.checkpoint.formats.gguf_blocks import KINDS, Kind
from export.checkpoint.formats.gguf_header import GgufFile, GgufTensor, gguf_files
from export.checkpoint.formats.gguf_names import PATCHES, SECOND_FRAME, checkpoint_name, is_turned
from export.checkpoint.formats.published import PublishedTensor, PublishedWeights
from export.checkpoint.packed import Codes, PackedWeight
from export.errors import BadShard
from glmserve.errors import UnknownArchitecture

FORMAT = "GGUF"
_TEXT, _VISION = "glm4", "clip"
_PROJECTOR = "glm4v"
_SMALL_FILES = ("config.json", "preprocessor_config.json", "tokenizer.json", "chat_template.jinja")


def gguf_weights(folder: Path) -> PublishedWeights:
    """The weights of a folder's GGUF files. Raises BadShard where it is not clear which are meant, one is missing,
    broken or of a type that is not read, and UnknownArchitecture for another model's."""
    check_folder(folder)
    files = [GgufFile.read(path) for path in gguf_files(folder)]
    text = [file for file in files if _architecture(file) != _VISION]
    vision = [file for file in files if _architecture(file) == _VISION]
    _check_text(text)
    _check_vision(vision)
    tensors = _tensors(text, vision)
    return PublishedWeights(folder, {}, FORMAT, tensors, others=tuple(file.path.name for file in files))


def check_folder(folder: Path) -> None:
    """Raises BadShard where safetensors lie beside the files, or what these do not hold is missing."""
    safetensors = sorted(path.name for path in folder.glob("*.safetensors"))
    if safetensors:
        raise BadShard(
            f"{folder} holds GGUF files and {safetensors[0]}: move the weights that are not meant to another folder."
        )
    missing = [name for name in _SMALL_FILES if not (folder / name).is_file()]
    if missing:
        raise BadShard(
            f"{folder} lacks {', '.join(missing)}, which GGUF files do not hold: copy the JSON and jinja files of the "
            "original checkpoint beside them (hf download zai-org/GLM-4.6V-Flash --include '*.json' '*.jinja')."
        )


def _architecture(file: GgufFile) -> str:
    return str(file.metadata.get("general.architecture", ""))


def _check_text(files: list[GgufFile]) -> None:
    for file in files:
        if _architecture(file) != _TEXT:
            raise UnknownArchitecture(
                f"{file.path.name} is of the architecture {_architecture(file) or 'none'}; of GGUF files this project "
                f"serves {_TEXT} with a projector {_PROJECTOR}."
            )
    parts = {int(file.metadata.get("split.count", 1)) for file in files}
    names = ", ".join(file.path.name for file in files)
    if not files:
        raise BadShard("The folder has no GGUF file of a text model, only the image encoder's.")
    if parts != {len(files)}:
        raise BadShard(f"Of {names} it is not clear which is meant: leave one model in the folder, with all its parts.")


def _check_vision(files: list[GgufFile]) -> None:
    names = ", ".join(file.path.name for file in files)
    if len(files) != 1:
        found = f"holds {names}" if files else "has none"
        raise BadShard(
            f"The image encoder lies in one GGUF file of its own (mmproj-….gguf), and the folder {found}: put in the "
            "one that is meant."
        )
    kind = str(files[0].metadata.get("clip.projector_type") or files[0].metadata.get("clip.vision.projector_type"))
    if kind != _PROJECTOR:
        raise UnknownArchitecture(f"{names} has a projector {kind}; this project serves {_PROJECTOR}.")


def _tensors(text: list[GgufFile], vision: list[GgufFile]) -> dict[str, PublishedTensor]:
    held = {name: tensor for file in (*text, *vision) for name, tensor in file.tensors.items()}
    found = {}
    for name, tensor in held.items():
        known = checkpoint_name(name)
        if known == PATCHES:
            found[known] = _patches(tensor, held)
        elif known is not None:
            found[known] = _tensor(tensor, _row_order(name, tensor, text[0]))
    return found


def _tensor(tensor: GgufTensor, rows_of: np.ndarray | None) -> PublishedTensor:
    """A tensor; `rows_of` i64 [rows] says where each row lies in the file, None as they come."""
    kind = KINDS[tensor.kind]

    def rows(begin: int, end: int) -> np.ndarray:
        raw = tensor.mapped()  # each time anew: what stays mapped stays in memory
        return raw[begin:end] if rows_of is None else raw[rows_of[begin:end]]

    if len(tensor.shape) == 1 and kind.element is not None:
        return _vector(tensor, kind.element, rows_of)
    if kind.element is not None:
        return _plain(tensor, kind.element, rows)
    if len(tensor.shape) != 2:
        raise BadShard(f"A tensor of {tensor.path.name} has codes, but {len(tensor.shape)} sizes instead of two.")

    def load(begin: int, end: int) -> Codes:
        assert kind.unpack is not None
        held = np.ascontiguousarray(rows(begin, end))
        return kind.unpack(held.reshape(len(held), -1, kind.size))

    out, inputs = tensor.shape
    packed = PackedWeight((out, inputs), kind.kept_bits, kind.block, load, has_offsets=kind.has_offsets)
    return PublishedTensor.of(packed, tensor.path.name, tensor.length, _scheme(kind), kind.bits)


def _scheme(kind: Kind) -> str:
    return f"{kind.name}, {kind.bits} bits"


def _plain(tensor: GgufTensor, element: np.dtype, rows: Callable[[int, int], np.ndarray]) -> PublishedTensor:
    """Plain numbers of two sizes or more, from rows of the last."""
    shape = tensor.shape

    def read(begin: int, end: int) -> np.ndarray:
        inner = int(np.prod(shape[1:-1], dtype=np.int64))
        held = np.ascontiguousarray(rows(begin * inner, end * inner)).view(element)
        return held.reshape(end - begin, *shape[1:])

    return PublishedTensor(tensor.path.name, shape, tensor.length, read, ir.DataType.from_numpy(element))


def _vector(tensor: GgufTensor, element: np.dtype, places: np.ndarray | None) -> PublishedTensor:
    """Plain numbers of one size, each where `places` says, None as they come."""

    def read(begin: int, end: int) -> np.ndarray:
        held = tensor.mapped().reshape(-1).view(element)
        return held[begin:end] if places is None else held[places[begin:end]]

    return PublishedTensor(tensor.path.name, tensor.shape, tensor.length, read, ir.DataType.from_numpy(element))


def _patches(first: GgufTensor, held: dict[str, GgufTensor]) -> PublishedTensor:
    """The first layer [out, 3, 2, patch, patch], whose weights for two frames are two tensors."""
    second = held.get(SECOND_FRAME)
    if second is None or second.shape != first.shape or KINDS[first.kind].element is None:
        raise BadShard(f"{first.path.name} lacks {SECOND_FRAME}, or has it in another shape: convert the model anew.")
    frames = [_tensor(tensor, None) for tensor in (first, second)]
    out, colours, *sides = first.shape

    def rows(begin: int, end: int) -> np.ndarray:
        return np.stack([frame.rows(begin, end) for frame in frames], axis=2)

    shape = (out, colours, 2, *sides)
    return PublishedTensor(first.path.name, shape, first.length + second.length, rows, frames[0].dtype)


def _row_order(name: str, tensor: GgufTensor, text: GgufFile) -> np.ndarray | None:
    """Where the rows of queries and keys lie: of the part of a head that rope turns, the converter puts the first of
    each pair before all second ones."""
    which = is_turned(name)
    if which is None or not any(text.metadata.get(f"{_TEXT}.rope.dimension_sections") or []):
        return None
    heads = text.metadata.get(f"{_TEXT}.attention.head_count" + ("" if which == "q" else "_kv"))
    turned = text.metadata.get(f"{_TEXT}.rope.dimension_count")
    size = tensor.shape[0]
    if not (isinstance(heads, int) and isinstance(turned, int) and heads > 0 and size % heads == 0):
        raise BadShard(f"{tensor.path.name} does not say how many heads {name} has.")
    if not 0 < turned <= size // heads or turned % 2:
        raise BadShard(f"{tensor.path.name} turns {turned} of a head's {size // heads} numbers, which cannot be.")
    places = np.arange(size).reshape(heads, -1)
    places[:, :turned] = places[:, :turned].reshape(heads, 2, -1).swapaxes(1, 2).reshape(heads, -1)
    return places.reshape(-1)
