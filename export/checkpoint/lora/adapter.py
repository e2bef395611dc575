"""Opens an adapter for one checkpoint: which of its tensors each matrix changes, all names and shapes checked."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from export.checkpoint.lora.config import CONFIG, AdapterConfig
from export.checkpoint.stored_tensors import STORED_TYPES, stored_tensors_in
from export.checkpoint.weights import EMBEDDING, Weights
from export.errors import BadShard
from glmserve.errors import BadArtifact

_FILE = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_HEAD = "lm_head.weight"
_PREFIX = "base_model.model."
_TEXT = "model.language_model"
_LOW_RANK = re.compile(r"(?P<module>.+)\.lora_(?P<kind>embedding_)?(?P<side>[AB])(\.(?!weight$)[^.]+)?(\.weight)?")
_WRAPPERS = re.compile(r"\.(base_layer|modules_to_save(\.default)?|original_module)(?=\.)")
_OTHER_ROOTS = (("language_model.model.", f"{_TEXT}."), ("language_model.", f"{_TEXT}."), ("model.", f"{_TEXT}."))
"""How modules are called where only the text model was trained, or by another release, and their names here."""
_ALL_LINEAR = "all-linear"
_NO_LAYERS = (EMBEDDING, "model.visual.embeddings.position_embedding.weight")
"""Matrices whose rows are looked up: they are no linear layers."""


@dataclass(frozen=True)
class LowRank:
    """`scale` times the product of two matrices, added to one. `left` and `right` name them in `tensors`; those of an
    embedding are turned round."""

    tensors: Weights
    left: str
    right: str
    scale: float
    is_turned: bool = False

    def applied(self, part: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """A part f32 [rows, columns] of the matrix after the change."""
        left, right = (self._matrix(name) for name in (self.left, self.right))
        changed: np.ndarray = part + np.float32(self.scale) * (left[rows] @ right[:, columns])
        return changed

    def _matrix(self, name: str) -> np.ndarray:
        matrix = self.tensors.read(name, self.tensors.stored_shape(name)).astype(np.float32)
        return matrix.T if self.is_turned else matrix


@dataclass(frozen=True)
class Replaced:
    """A tensor that was trained as a whole and takes the place of the checkpoint's; `name` is its own in `tensors`."""

    tensors: Weights
    name: str

    def applied(self, part: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """That part of the tensor f32."""
        found = self.tensors.read_rows(self.name, rows.start, rows.stop).astype(np.float32)
        return found if found.ndim == 1 else found[:, columns]


Change = LowRank | Replaced


@dataclass(frozen=True)
class Adapter:
    """One adapter; `name` is what manifest and /v1/models call it."""

    name: str
    folder: Path
    changes: dict[str, Change]

    @staticmethod
    def open(folder: Path, name: str, weights: Weights, tied_head: bool) -> Adapter:
        """The adapter in a folder, for a checkpoint with these weights. Raises BadArtifact or BadShard, naming file and
        tensor, for one that is incomplete, not of this checkpoint, or not to be merged; what a layer has too few of is
        told apart from what it has too many of."""
        config = AdapterConfig.read(folder)
        tensors = _tensors_in(folder)
        if config.targets == _ALL_LINEAR:
            config = _resolved(config, weights)
        has_low_rank = any(".lora_" in key for key in tensors.shards)
        sides: dict[str, dict[str, str]] = defaultdict(dict)
        changes: dict[str, Change] = {}
        for key in tensors.shards:
            match = _LOW_RANK.fullmatch(key.removeprefix(_PREFIX))
            if match:
                sides[match["module"]][f"{match['kind'] or ''}{match['side']}"] = key
            else:
                target, tensor = _whole_tensor(config, tensors, key, weights, has_low_rank)
                changes[target] = tensor
        for module, held in sides.items():
            target = _target(config, module, weights, key=next(iter(held.values())))
            changes[target] = _low_rank(config, tensors, module, held, weights.stored_shape(target))
        if not changes:
            raise BadArtifact(f"{folder / _FILE} holds no tensor of an adapter.")
        for target in changes:
            if tied_head and target in (EMBEDDING, _HEAD):
                raise config.refusal(f"changes {target}, and this checkpoint's head is tied to its embeddings")
        _check_all_there(config, set(sides), weights)
        return Adapter(name, folder, changes)

    @cached_property
    def digest(self) -> str:
        """The first half of a SHA-256 over both files."""
        both = hashlib.sha256()
        for file in (CONFIG, _FILE):
            with (self.folder / file).open("rb") as content:
                both.update(hashlib.file_digest(content, "sha256").digest())
        return both.hexdigest()[:32]


def _tensors_in(folder: Path) -> Weights:
    path = folder / _FILE
    if not path.is_file():
        pickled = (
            f" {_PICKLED} is not read, since pickled weights can run code." if (folder / _PICKLED).exists() else ""
        )
        raise BadShard(f"{folder} holds no {_FILE}.{pickled} Save the adapter with safe_serialization=True.")
    stored = stored_tensors_in(path)
    for name, tensor in stored.items():
        if tensor.dtype is None:
            raise BadShard(f"Tensor {name} in {path} is not stored in one of {', '.join(STORED_TYPES)}.")
    return Weights(folder, dict.fromkeys(stored, _FILE))


def _resolved(config: AdapterConfig, weights: Weights) -> AdapterConfig:
    """The same with the linear layers that `all-linear` means: all but the head."""
    modules = tuple(name.removesuffix(".weight") for name in _linear_layers(weights) if name != _HEAD)
    return replace(config, targets=modules)


def _linear_layers(weights: Weights) -> Iterator[str]:
    for name in weights.names:
        if name.endswith(".weight") and name not in _NO_LAYERS and len(weights.stored_shape(name)) == 2:
            yield name


def _checkpoints_name(module: str, weights: Weights, suffix: str) -> str | None:
    """What the checkpoint calls a module's tensor; None where it has none."""
    roots = [(old, new) for old, new in _OTHER_ROOTS if module.startswith(old)]
    names = [module, *(new + module.removeprefix(old) for old, new in roots), f"{_TEXT}.{module}"]
    return next((f"{name}.{suffix}" for name in names if f"{name}.{suffix}" in weights.names), None)


def _target(config: AdapterConfig, module: str, weights: Weights, key: str) -> str:
    """The checkpoint's matrix that a module's adapter changes."""
    where = f"{config.folder / _FILE}: {key}"
    target = _checkpoints_name(module, weights, "weight")
    if target is None:
        raise BadArtifact(f"{where}: the checkpoint has no layer {module}: is the adapter one of another model?")
    if not (config.is_target(module) or config.is_target(target.removesuffix(".weight"))):
        raise BadArtifact(f"{where}: target_modules of {CONFIG} does not name {module}, so peft would leave it out.")
    if len(weights.stored_shape(target)) != 2:
        raise config.refusal(f"changes {target}, a convolution")
    return target


def _low_rank(
    config: AdapterConfig, tensors: Weights, module: str, held: dict[str, str], shape: tuple[int, ...]
) -> LowRank:
    """The product that is added to a matrix of this shape [out, in]; raises BadShard where it does not fit."""
    is_embedding = any(side.startswith("embedding_") for side in held)
    kinds = ("embedding_A", "embedding_B") if is_embedding else ("B", "A")
    missing = [kind for kind in kinds if kind not in held]
    if missing:
        raise BadShard(f"{config.folder / _FILE} lacks lora_{missing[0]} of {module}, and has its other half.")
    rank = config.rank_of(module)
    left, right = (held[kind] for kind in kinds)
    wanted = ((rank, shape[0]), (shape[1], rank)) if is_embedding else ((shape[0], rank), (rank, shape[1]))
    for key, right_shape in zip((left, right), wanted, strict=True):
        found = tensors.stored_shape(key)
        if found != right_shape:
            raise BadShard(
                f"{config.folder / _FILE}: {key} is {list(found)}, not {list(right_shape)}, as rank {rank} of "
                f"{CONFIG} and the checkpoint's layer {list(shape)} ask for."
            )
    return LowRank(tensors, left, right, config.scale_of(module), is_turned=is_embedding)


def _whole_tensor(
    config: AdapterConfig, tensors: Weights, key: str, weights: Weights, has_low_rank: bool
) -> tuple[str, Replaced]:
    """The checkpoint's tensor that one which was saved whole replaces; raises BadArtifact or BadShard."""
    where = f"{config.folder / _FILE}: {key}"
    module, _, suffix = _WRAPPERS.sub("", key.removeprefix(_PREFIX)).rpartition(".")
    target = _checkpoints_name(module, weights, suffix) if module else None
    is_saved_table = (
        target in (EMBEDDING, _HEAD) and has_low_rank
    )  # peft saves these of itself when they may have grown
    is_known = config.keeps(module) or (config.saves_biases and suffix == "bias") or is_saved_table
    if not is_known:
        raise BadArtifact(f"{where} is neither a LoRA matrix nor named by modules_to_save of {CONFIG}.")
    if target is None:
        raise BadArtifact(f"{where}: the checkpoint has no tensor {module}.{suffix}: is the adapter of another model?")
    found, right = tensors.stored_shape(key), weights.stored_shape(target)
    if found != right:
        raise BadShard(
            f"{where} is {list(found)}, and the checkpoint's {target} is {list(right)}. A vocabulary that grew needs "
            "the config and tokenizer that it was trained with: merge the adapter with peft and export the result."
        )
    return target, Replaced(tensors, key)


def _check_all_there(config: AdapterConfig, found: set[str], weights: Weights) -> None:
    """Raises BadShard where a layer that the config names has no matrices: an adapter that was cut."""
    for name in _linear_layers(weights):
        module = name.removesuffix(".weight")
        names = {module, *(old + module.removeprefix(new) for old, new in _OTHER_ROOTS if module.startswith(new))}
        names.add(module.removeprefix(f"{_TEXT}."))
        if config.is_target(module) and not names & found:
            raise BadShard(
                f"{config.folder / _FILE} lacks the matrices of {module}, which target_modules of {CONFIG} names."
            )
