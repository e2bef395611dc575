"""What becomes of each published format, in words: the table of the documents."""

from __future__ import annotations

from dataclasses import dataclass

from export.checkpoint.formats import awq, compressed_tensors, float8, gptq
from export.checkpoint.formats.gguf_blocks import KINDS
from export.checkpoint.formats.gguf_weights import FORMAT as GGUF
from export.checkpoint.formats.opened import READERS, REFUSED

_UNEVEN = "groups that are no multiple of 16; act-order with groups of unequal size"
_NONE = "nothing"


@dataclass(frozen=True)
class Support:
    """A format and what of it stays as it is, is rounded anew, or is refused."""

    format: str
    kept: str
    rounded: str
    refused: str


def support() -> list[Support]:
    """One for each format that is read or refused by name."""
    plain = ", ".join(kind.name for kind in KINDS.values() if kind.element is not None)
    coded = ", ".join(kind.name for kind in KINDS.values() if kind.element is None)
    packings = "`sparse-…`, `marlin-24`, `nvfp4-…`, `mxfp4-…`; `transform_config`; codes of other than 2, 4, 8 bits"
    return [
        Support(
            _name(compressed_tensors.METHOD),
            "W4A16, W8A16 (`pack-quantized`), W8A8 (`int-quantized`): one scale, one for each output or group, with or "
            "without zero points, act-order",
            f"FP8 (`float-quantized`); {_UNEVEN}",
            packings,
        ),
        Support(
            _name(gptq.METHOD),
            "2, 4 and 8 bits, `gptq` and `gptq_v2`, any `group_size`, symmetric or not, `desc_act`",
            _UNEVEN,
            "3 bits, other `checkpoint_format`s",
        ),
        Support(_name(awq.METHOD), "`version` `gemm`", _UNEVEN, "other `version`s (`gemv`, `marlin`)"),
        Support(_name(float8.METHOD), _NONE, "all, in tiles or not", "other types than E4M3 and E5M2"),
        Support(
            GGUF,
            f"{coded}; numbers ({plain}) as they would be of any checkpoint",
            _NONE,
            "other types (Q2_K, Q3_K, IQ…), two models in one folder, an `mmproj` of another model",
        ),
        *(Support(method, _NONE, _NONE, "all: export the unquantised checkpoint") for method in REFUSED),
    ]


def _name(method: str) -> str:
    """What a method is called, with the word of `quant_method`."""
    return f"{READERS[method][0]} (`{method}`)"
