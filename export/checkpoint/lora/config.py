"""Reads an adapter's adapter_config.json, and refuses in words what cannot be merged by adding to weights."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmserve.errors import BadArtifact

CONFIG = "adapter_config.json"
_MERGE_FIRST = (
    "Merge it with peft (merge_and_unload, then save_pretrained) and export the checkpoint that this gives, without "
    "--lora."
)
_REFUSED = {
    "use_dora": "is a DoRA adapter: it scales the merged weights anew",
    "lora_bias": "trains biases inside LoRA (lora_bias)",
    "alora_invocation_tokens": "counts from certain tokens on only (alora_invocation_tokens)",
    "layer_replication": "repeats layers (layer_replication)",
    "target_parameters": "adapts parameters that are no layers (target_parameters)",
    "trainable_token_indices": "trains single tokens (trainable_token_indices)",
    "megatron_config": "is one of Megatron's (megatron_config)",
}
"""Values of a config that ask for more than a sum of weights, and what each says of the adapter."""
_VARIANTS = ("use_qalora", "use_bdlora", "arrow_config", "kasa_config", "velora_config", "monteclora_config")
"""Kinds of LoRA whose layers compute something else."""
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""How training may begin so that the base model's weights stay what they are."""


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter changes and by how much. Module names are those that training saw."""

    folder: Path
    rank: int
    alpha: float
    ranks: dict[str, int]
    alphas: dict[str, float]
    takes_root: bool
    targets: str | tuple[str, ...]
    excluded: str | tuple[str, ...]
    layers: tuple[int, ...]
    layer_names: tuple[str, ...]
    saved: tuple[str, ...]
    saves_biases: bool

    @staticmethod
    def read(folder: Path) -> AdapterConfig:
        """The config of the adapter in a folder; raises BadArtifact, naming file and key, for what is missing, of a
        wrong type or not to be merged."""
        path = folder / CONFIG
        try:
            values = json.loads(path.read_text("utf-8"))
            if not isinstance(values, dict):
                raise ValueError
        except FileNotFoundError:
            raise BadArtifact(f"{folder} is no adapter: it has no {CONFIG}.") from None
        except (OSError, ValueError):
            raise BadArtifact(f"{path} cannot be read as JSON.") from None
        _check_kind(path, values)
        layers = values.get("layers_to_transform")
        ranks, alphas = (_table(path, values, key) for key in ("rank_pattern", "alpha_pattern"))
        return AdapterConfig(
            folder=folder,
            rank=_whole(path, "r", values.get("r", 8)),
            alpha=_number(path, "lora_alpha", values.get("lora_alpha", 8)),
            ranks={key: _whole(path, f"rank_pattern: {key}", rank) for key, rank in ranks},
            alphas={key: _number(path, f"alpha_pattern: {key}", alpha) for key, alpha in alphas},
            takes_root=values.get("use_rslora") is True,
            targets=_names(path, values, "target_modules"),
            excluded=_names(path, values, "exclude_modules"),
            layers=tuple(_index(path, index) for index in ([layers] if isinstance(layers, int) else layers or [])),
            layer_names=_listed(_names(path, values, "layers_pattern")),
            saved=_listed(_names(path, values, "modules_to_save")),
            saves_biases=values.get("bias", "none") != "none",
        )

    def is_target(self, module: str) -> bool:
        """Whether training adapted the module of this name; `all-linear` is for the caller to resolve."""
        if self.excluded and _is_named(module, self.excluded):
            return False
        if self.keeps(module) or not _is_named(module, self.targets):
            return False
        if isinstance(self.targets, str) or not self.layers:
            return True
        patterns = self.layer_names or (r"[^.]*",)
        found = (re.match(rf"(?:^|.*?\.){pattern}\.(?P<index>\d+)\.", module) for pattern in patterns)
        match = next((match for match in found if match), None)
        return match is not None and int(match["index"]) in self.layers

    def keeps(self, module: str) -> bool:
        """Whether the module was trained and saved as a whole, by `modules_to_save`."""
        return any(module == name or f".{name}." in f".{module}." for name in self.saved)

    def rank_of(self, module: str) -> int:
        """The rank of a module's adapter."""
        return self.ranks.get(_pattern(self.ranks, module), self.rank)

    def scale_of(self, module: str) -> float:
        """What the product of a module's two matrices is multiplied by."""
        rank, alpha = self.rank_of(module), self.alphas.get(_pattern(self.alphas, module), self.alpha)
        return alpha / (math.sqrt(rank) if self.takes_root else rank)

    def refusal(self, reason: str) -> BadArtifact:
        """The error for an adapter that `reason` keeps from being merged here."""
        return _refusal(self.folder / CONFIG, reason)


def _check_kind(path: Path, values: dict[str, Any]) -> None:
    """Raises BadArtifact for an adapter that is more than a sum of weights."""
    kind = values.get("peft_type")
    if kind != "LORA":
        raise BadArtifact(f"{path}: peft_type is {kind!r}; only LORA adapters are merged. {_MERGE_FIRST}")
    for key, reason in _REFUSED.items():
        if values.get(key):
            raise _refusal(path, reason)
    for key in _VARIANTS:
        if values.get(key):
            raise _refusal(path, f"is of a kind of its own ({key})")
    start = values.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS:
        raise _refusal(path, f"began with init_lora_weights {start!r}, which changes the weights that it is added to")
    if values.get("bias", "none") not in ("none", "all", "lora_only"):
        raise BadArtifact(f"{path}: bias is {values['bias']!r}; none, all and lora_only are known.")


def _refusal(path: Path, reason: str) -> BadArtifact:
    return BadArtifact(f"The adapter of {path} {reason}, so adding it to the weights is not enough. {_MERGE_FIRST}")


def _is_named(module: str, names: str | tuple[str, ...]) -> bool:
    """A text is an expression for the whole name; of a list, one is the name or its end."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _pattern(table: dict[str, Any], module: str) -> str:
    """The first key of a table that is the module's name, or its end, as an expression; else the name itself."""
    return next((key for key in table if re.match(rf"(.*\.)?({key})$", module)), module)


def _table(path: Path, values: dict[str, Any], key: str) -> list[tuple[str, Any]]:
    table = values.get(key) or {}
    if not isinstance(table, dict):
        raise BadArtifact(f"{path}: {key} must be an object of names and numbers.")
    for name in table:
        _check_expression(path, key, name)
    return list(table.items())


def _names(path: Path, values: dict[str, Any], key: str) -> str | tuple[str, ...]:
    names = values.get(key) or ()
    if isinstance(names, str):
        _check_expression(path, key, names)
        return names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise BadArtifact(f"{path}: {key} must be a text or a list of texts.")
    return tuple(names)


def _check_expression(path: Path, key: str, text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise BadArtifact(f"{path}: {key}: {text!r} is no regular expression: {error}.") from None


def _listed(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _whole(path: Path, key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadArtifact(f"{path}: {key} is {value!r}, and must be a whole number above 0.")
    return value


def _index(path: Path, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadArtifact(f"{path}: layers_to_transform holds {value!r}, which is no layer's number.")
    return value


def _number(path: Path, key: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise BadArtifact(f"{path}: {key} is {value!r}, and must be a number.")
    return float(value)
