"""What is to be built from what: a checkpoint whose small files are all there, and how its numbers are to be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from export.build.vision_backend import VisionBackend, check_backend, vision_config
from export.calibrate.decoder_rounding import RoundedDecoder
from export.calibrate.order import CalibrationOrder
from export.checkpoint.formats.fates import Fate, fates_of, format_of, notes_of, published_bits
from export.checkpoint.formats.opened import check_small_files, open_weights
from export.checkpoint.header_weights import HeaderWeights
from export.checkpoint.hub import Source
from export.checkpoint.lora.adapter import Adapter
from export.checkpoint.lora.merged import MergedWeights
from export.checkpoint.preflight import try_prompt
from export.checkpoint.weights import Weights
from export.graph.decoder import decoder_graph
from export.graph.vision_encoder import vision_graph
from export.precision import KvPrecision, Numbers, Precision, Target, numbers_as_published, numbers_of
from export.rtx.engines import Engine, engines_of
from export.rtx.order import EngineOrder
from export.verify.golden import has_golden
from glmserve.build.manifest import DECODER_PATH, REPOSITORY_FOLDER, TRITONS_VISION_PATH, VISION_PATH
from glmserve.contract import VISION_MODEL
from glmserve.errors import BadArtifact
from glmserve.model.config import OPTIONAL_FILES, PROCESSOR_FILES, Checkpoint
from glmserve.system import malloc

_INT4_ON_A_PROCESSOR = (
    "int4 on a processor saves memory and disk, not time: with several requests at once int8 is faster, and with AMX "
    "twice as fast. Take int4 where int8 does not fit into memory: `plan --precision int8` says whether it does."
)
VISION_CONFIG_PATH = f"{REPOSITORY_FOLDER}/{VISION_MODEL}/config.pbtxt"


@dataclass(frozen=True)
class BuildSpec:
    """One build to be made; `source` is the checkpoint's name, `weights` reads the numbers, `headers` does not.
    `order` says which engines of TensorRT for RTX it gets; None for none. `adapters` are merged into `weights`.
    `calibration` says on what the decoder is calibrated; None for plain rounding."""

    folder: Path
    source: str
    precision: Precision
    target: Target
    kv: KvPrecision
    numbers: Numbers
    vision_backend: VisionBackend
    checkpoint: Checkpoint
    weights: Weights
    headers: HeaderWeights
    order: EngineOrder | None = None
    adapters: tuple[Adapter, ...] = ()
    calibration: CalibrationOrder | None = None

    @staticmethod
    def of(
        folder: Path,
        precision: Precision | None,
        target: Target,
        vision_backend: VisionBackend = VisionBackend.ENGINE,
        source: str | None = None,
        kv: KvPrecision = KvPrecision.SAME,
        order: EngineOrder | None = None,
        adapters: Sequence[Source] = (),
        calibration: CalibrationOrder | None = None,
    ) -> BuildSpec:
        """Reads configuration and headers, and tries tokenizer and template; without a precision, the one that the
        checkpoint is published in. `adapters` are LoRA adapters, in the order they are merged in. Raises, naming file
        and key or tensor: UnknownArchitecture, NoTokenizer, BadShard, or BadArtifact for anything else that is missing
        or wrong, and for a target or a backend that cannot run the precision."""
        if precision is not None:
            check_backend(vision_backend, precision, kv)
            numbers_of(precision, target, kv)
        check_small_files(folder)
        checkpoint = Checkpoint.read(folder)
        try_prompt(folder, checkpoint)
        malloc.trim()  # the tokenizer
        weights = open_weights(folder)
        if calibration is not None and published_bits(weights) is not None:
            raise BadArtifact(
                "--calibrate, --prompts and --bits choose how numbers are rounded, and this checkpoint is published in "
                "codes, which a build keeps: leave them out, or export the unquantised checkpoint."
            )
        precision, numbers = _settled(precision, weights, target, kv)
        check_backend(vision_backend, precision, kv)
        headers = HeaderWeights.of(weights)
        name = source or folder.resolve().name
        order = (order or EngineOrder()) if target is Target.RTX else None
        opened = tuple(
            Adapter.open(adapter.folder, adapter.name, weights, checkpoint.text.tied_head) for adapter in adapters
        )
        merged = MergedWeights.of(weights, opened)
        headers = replace(headers, source=merged)
        return BuildSpec(
            folder,
            name,
            precision,
            target,
            kv,
            numbers,
            vision_backend,
            checkpoint,
            merged,
            headers,
            order,
            opened,
            calibration,
        )

    @property
    def published(self) -> Weights:
        """The checkpoint's weights without adapters."""
        return self.weights.base if isinstance(self.weights, MergedWeights) else self.weights

    @property
    def fates(self) -> list[Fate]:
        """What becomes of a published checkpoint's codes; empty where it has none."""
        return fates_of(self.published, self.numbers, self.weights)

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the checkpoint's format a build leaves out, and what its precision is for, a sentence each."""
        is_slow = self.precision is Precision.INT4 and self.target is Target.CPU
        return (*notes_of(self.published), *((_INT4_ON_A_PROCESSOR,) if is_slow else ()))

    @property
    def format(self) -> str:
        """The format that the checkpoint is published in, and whether the build keeps its codes; empty for numbers."""
        return format_of(self.published, self.numbers, self.weights)

    @property
    def small_files(self) -> list[Path]:
        """The files of the checkpoint that a build keeps as they are."""
        names = (*PROCESSOR_FILES, *OPTIONAL_FILES)
        return [self.folder / name for name in names if (self.folder / name).is_file()]

    @property
    def has_golden(self) -> bool:
        """Whether recorded logits say what the build must compute. An adapter makes the model answer otherwise."""
        return not self.adapters and has_golden(self.folder)

    @property
    def vision_config(self) -> str | None:
        """The `config.pbtxt` of the vision model, for VISION_CONFIG_PATH; None where the engine runs the encoder."""
        return vision_config(self.vision_backend, self.checkpoint, self.target)

    @property
    def vision_path(self) -> str:
        """Where the image encoder's graph lies in the build."""
        return VISION_PATH if self.vision_config is None else TRITONS_VISION_PATH

    def graphs(
        self, weights: Weights, calibrate: Callable[[], RoundedDecoder] | None = None
    ) -> Iterator[tuple[str, ir.Model]]:
        """The build's graphs one after the other, each with its path in the build; `weights` is one of the two.
        `calibrate` gives the decoder's, once the image encoder is done."""
        numbers = self.numbers
        yield self.vision_path, vision_graph(self.checkpoint, weights, numbers)
        if calibrate is not None:
            found = calibrate()
            weights, numbers = found.weights, replace(numbers, in_8_bits=found.in_8_bits)
        yield DECODER_PATH, decoder_graph(self.checkpoint, weights, numbers)

    def standard_graphs(self, weights: Weights) -> Iterator[tuple[str, ir.Model]]:
        """The graphs that stand beside these for other runtimes, where the backend wants any, each with the path of the
        one that it shares the weights of."""
        if self.vision_backend is VisionBackend.TENSORRT:
            yield self.vision_path, vision_graph(self.checkpoint, weights, self.numbers, is_standard=True)
            yield DECODER_PATH, decoder_graph(self.checkpoint, weights, self.numbers, is_standard=True)

    def engines(self, weights: Weights) -> tuple[list[Engine], Engine] | None:
        """The decoder's engines of TensorRT for RTX in order, and the image encoder's; None where none are ordered.
        `weights` is one of the two.

        Raises DoesNotFit when building the smallest takes more memory than the order allows."""
        if self.order is None:
            return None
        return engines_of(self.checkpoint, weights, self.numbers, self.order)


def _settled(
    precision: Precision | None, weights: Weights, target: Target, kv: KvPrecision
) -> tuple[Precision, Numbers]:
    """The precision that is asked for, or the one that the weights are published in."""
    bits = published_bits(weights) if precision is None else None
    if bits is not None:
        return numbers_as_published(bits, target, kv)
    precision = precision or Precision.FP32
    return precision, numbers_of(precision, target, kv)
