"""The tensors that cross a process or enter a graph: their names, types and shapes, and Triton's view of them.

A letter in a shape is a size known only at run time (-1 in Triton). Change anything here and CONTRACT_VERSION grows: a
build of another version is refused, with both versions named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from glmserve.sampling_parameters import PARAMETERS

CONTRACT_VERSION = 10
DECODER_MODEL = "glm4v"
WHOLE_MODEL = "glm4v_whole"
"""The same as DECODER_MODEL in one response, for clients that speak plain HTTP."""
VISION_MODEL = "vision_encoder"
"""The image encoder, where one of Triton's own backends runs it; otherwise DECODER_MODEL encodes images itself."""
MODELS = (DECODER_MODEL, WHOLE_MODEL)
VISION_MAX_BATCH = 8
"""Most images in one encoder batch; they have one patch grid."""


class Finish(IntEnum):
    """Why an answer ended, as sent in FINISH."""

    RUNNING = 0
    STOP = 1
    LENGTH = 2


@dataclass(frozen=True)
class Tensor:
    """One named tensor; `dtype` is numpy's name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    is_optional: bool = False

    @property
    def triton_dtype(self) -> str:
        """The datatype in requests, such as UINT8."""
        return _TRITON_DTYPES[self.dtype]


_TRITON_DTYPES = {"int32": "INT32", "int64": "INT64", "uint8": "UINT8", "float32": "FP32", "bool": "BOOL"}

# --- glm4v: what the gateway sends, and what comes back on the stream ---------------------------------------------

INPUT_IDS = Tensor("INPUT_IDS", "int64", ("tokens",))
"""The whole prompt, every image expanded to its tokens."""
PATCHES = Tensor("PATCHES", "uint8", ("patches", "patch_bytes"), is_optional=True)
"""All images' patches one after another, in merge-block order; of an image of two frames, the first frame's and then
the second's."""
GRIDS = Tensor("GRIDS", "int32", ("images", 2), is_optional=True)
"""Patch rows and columns of each image."""
FRAMES = Tensor("FRAMES", "int32", ("images",), is_optional=True)
"""Frames of each image: 1 of a still image, 2 where a video's frames differ; without it every image has one."""
SAMPLING_INPUTS = {
    entry.name: Tensor(entry.tensor_name, entry.wire_dtype, (1,), entry.is_optional) for entry in PARAMETERS
}
"""The tensor of each sampling parameter, by the parameter's name."""
STOP_TOKEN_IDS = Tensor("STOP_TOKEN_IDS", "int64", ("stop_token_ids",), is_optional=True)
"""Token ids that end the answer beside the checkpoint's own."""
BIASED_TOKEN_IDS = Tensor("BIASED_TOKEN_IDS", "int64", ("biased_tokens",), is_optional=True)
"""Token ids to whose logits something is added, each at most once."""
LOGIT_BIAS = Tensor("LOGIT_BIAS", "float32", ("biased_tokens",), is_optional=True)
"""What is added to the logit of each of BIASED_TOKEN_IDS."""
BAD_WORDS = Tensor("BAD_WORDS", "int64", ("words", "longest_word"), is_optional=True)
"""Words as token ids, filled up with -1: a word's last token is never drawn after its other tokens."""
ALLOWED_TOKEN_IDS = Tensor("ALLOWED_TOKEN_IDS", "int64", ("allowed_tokens",), is_optional=True)
"""The only token ids that may be drawn; absent or empty allows all."""
ANSWERS = Tensor("ANSWERS", "int32", (1,), is_optional=True)
"""How many answers are wanted, each with the next seed; the default is 1. A negative number asks whether there are
places for so many, those of several prompts too: such a request ends at once, without a token, or is refused as one
that wants them would be."""
GRAMMAR = Tensor("GRAMMAR", "uint8", ("bytes",), is_optional=True)
"""What the answer must look like: `AnswerRules` as JSON in UTF-8."""
CACHE_SCOPE = Tensor("CACHE_SCOPE", "int64", (1,), is_optional=True)
"""Cached prefixes and features are shared only within one scope; the default is 0, a scope like any other."""
CACHE_SALT = Tensor("CACHE_SALT", "int64", (1,), is_optional=True)
"""Narrows the scope to requests of the same salt, also where the settings share caches between scopes; 0 is none."""
WHOLE = Tensor("WHOLE", "int32", (1,), is_optional=True)
"""1 asks for the whole answer in one message; 0, the default, for tokens as they are sampled."""
DEADLINE_MS = Tensor("DEADLINE_MS", "int32", (1,))
"""Milliseconds from arrival after which the engine ends the request."""
CANCEL_KEY = Tensor("CANCEL_KEY", "int64", (1,), is_optional=True)
"""A random key of this request, by which a later request may cancel it."""
CANCEL = Tensor("CANCEL", "int64", ("keys",), is_optional=True)
"""Cancels the requests with these CANCEL_KEYs, which end with an error; the cancelling request asks for nothing else.

Triton's own cancellation can crash the server when it meets the end of an answer.
"""

TOKENS = Tensor("TOKENS", "int32", ("tokens",))
"""New tokens; the one that ends the answer is not among them."""
CHOICES = Tensor("CHOICES", "int32", ("tokens",))
"""Which answer each token belongs to; where several are wanted only."""
FINISH = Tensor("FINISH", "int32", ("answers",))
"""A `Finish` value for each answer, in a message with which an answer ends. None of them is RUNNING in the last message
only, as there are timings and cached tokens in that only."""
STOP_TOKENS = Tensor("STOP_TOKENS", "int32", ("answers",))
"""Which of STOP_TOKEN_IDS ended each answer, -1 where none did; in the last message, and only where one did."""
TIMINGS_MS = Tensor("TIMINGS_MS", "float32", (4,))
"""Queue, vision, prefill and decode time so far, in milliseconds."""
CACHED_TOKENS = Tensor("CACHED_TOKENS", "int32", (1,))
"""Prompt tokens whose KV came from a cached prefix."""
LOGPROB_IDS = Tensor("LOGPROB_IDS", "int32", ("tokens", "alternatives"))
"""Where LOGPROBS is true: each token's id, then those of the likeliest tokens; in messages that carry tokens only."""
LOGPROB_VALUES = Tensor("LOGPROB_VALUES", "float32", ("tokens", "alternatives"))
"""Natural logarithms of the model's own probabilities, before temperature, penalties and masks."""

DECODER_INPUTS = (
    INPUT_IDS,
    PATCHES,
    GRIDS,
    FRAMES,
    *SAMPLING_INPUTS.values(),
    STOP_TOKEN_IDS,
    BIASED_TOKEN_IDS,
    LOGIT_BIAS,
    BAD_WORDS,
    ALLOWED_TOKEN_IDS,
    ANSWERS,
    GRAMMAR,
    CACHE_SCOPE,
    CACHE_SALT,
    WHOLE,
    DEADLINE_MS,
    CANCEL_KEY,
    CANCEL,
)
DECODER_OUTPUTS = (TOKENS, CHOICES, FINISH, STOP_TOKENS, TIMINGS_MS, CACHED_TOKENS, LOGPROB_IDS, LOGPROB_VALUES)

# --- the image encoder: Triton's names are the graph's names, so that its ONNX and TensorRT backends can serve it -----

IMAGE_PATCHES = Tensor("patches", "uint8", ("patches", "patch_bytes"))
"""As in PATCHES: rows times columns of them, or twice as many."""
ROW_WEIGHTS = Tensor("row_weights", "float32", ("rows", "table_side"))
"""Bicubic weights that resize the position table's rows to the image's."""
COLUMN_WEIGHTS = Tensor("column_weights", "float32", ("columns", "table_side"))
IMAGE_FEATURES = Tensor("image_features", "float32", ("image_tokens", "hidden"))

VISION_INPUTS = (IMAGE_PATCHES, ROW_WEIGHTS, COLUMN_WEIGHTS)
VISION_OUTPUTS = (IMAGE_FEATURES,)


def render_config(model: str) -> str:
    """The `config.pbtxt` of one of MODELS, as kept in `model_repository/`."""
    head = _DECODER_HEAD.format(decoupled=str(model == DECODER_MODEL).lower())
    inputs = tuple(tensor for tensor in DECODER_INPUTS if model == DECODER_MODEL or tensor is not WHOLE)
    return f'name: "{model}"\nbackend: "python"\n{head}{_fields("input", inputs)}{_fields("output", DECODER_OUTPUTS)}'


def render_vision_config(backend: str, on_gpu: bool, sizes: Mapping[str, int]) -> str:
    """The image encoder's `config.pbtxt` for one of Triton's own backends, onnxruntime or tensorrt.

    These compare shapes with the model's, so `sizes` gives the words in them that are fixed in it.
    """
    head = _VISION_HEAD.format(max_batch=VISION_MAX_BATCH, kind="KIND_GPU" if on_gpu else "KIND_CPU")
    fields = f"{_fields('input', VISION_INPUTS, sizes)}{_fields('output', VISION_OUTPUTS, sizes)}"
    return f'name: "{VISION_MODEL}"\nbackend: "{backend}"\n{head}{fields}'


_DECODER_HEAD = """\
max_batch_size: 0
model_transaction_policy {{ decoupled: {decoupled} }}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
"""
_VISION_HEAD = """\
max_batch_size: {max_batch}
dynamic_batching {{ }}
instance_group [ {{ kind: {kind} count: 1 }} ]
"""


def _fields(kind: str, tensors: tuple[Tensor, ...], sizes: Mapping[str, int] | None = None) -> str:
    rows = []
    for tensor in tensors:
        known = [(sizes or {}).get(size, -1) if isinstance(size, str) else size for size in tensor.shape]
        dims = ", ".join(map(str, known))
        optional = " optional: true" if tensor.is_optional else ""
        rows.append(f'  {{ name: "{tensor.name}" data_type: TYPE_{tensor.triton_dtype} dims: [ {dims} ]{optional} }}')
    return f"{kind} [\n" + ",\n".join(rows) + "\n]\n"


@dataclass(frozen=True)
class RowGroup:
    """Names of the graph inputs and outputs of one group of KV rows: which tokens it is fed and where its KV lies."""

    name: str

    @property
    def index(self) -> str:
        """i64 [rows, width]: which of the T tokens each row is fed; past a row's own tokens, any."""
        return f"{self.name}_index"

    @property
    def seqlens_k(self) -> str:
        """i32 [rows]: tokens of the row after this call, less one."""
        return f"{self.name}_seqlens_k"

    @property
    def total_length(self) -> str:
        """i32 []: the most tokens any row has after this call."""
        return f"{self.name}_total_length"

    def past(self, layer: int) -> tuple[str, str]:
        """The layer's key and value buffers as inputs, [rows, kv_heads, context, head_dim] in the build's precision."""
        return f"{self.name}_past_key.{layer}", f"{self.name}_past_value.{layer}"

    def present(self, layer: int) -> tuple[str, str]:
        """The same buffers as outputs."""
        return f"{self.name}_present_key.{layer}", f"{self.name}_present_value.{layer}"


class DecoderGraph:
    """Names inside the decoder's ONNX graph: T tokens of D decoded rows and of C chunks up to S long, N of them drawn
    after, M feature rows (row 0 is a dummy). No group is ever empty: where nobody is in it, it holds a stray row."""

    INPUT_IDS = "input_ids"  # i64 [T]
    IMAGE_FEATURES = "image_features"  # f32 [M, hidden]
    IMAGE_SLOT = "image_slot"  # i64 [T]: which feature row stands here, 0 for text
    POSITION_IDS = "position_ids"  # i64 [3, T]
    DECODED = RowGroup("decoded")  # [D, 1]
    CHUNK = RowGroup("chunk")  # [C, S]
    PLACES = "places"  # i64 [T]: where each token is among the D + C * S places of both groups
    LOGITS_INDEX = "logits_index"  # i64 [N]: the tokens whose logits are wanted
    # Here stand the inputs of `sampling_parameters.GRAPH_PARAMETERS`, [N, 1] each; greedy is a top_k of 1.
    UNIFORM = "uniform"  # f32 [N, candidates] in (0, 1)
    EDIT_INDEX = "edit_index"  # i64 [P, 2]: row and token of each logit to edit; P is 0 where none is
    PENALTY = "penalty"  # f32 [P]: what a positive logit is divided and a negative one multiplied by
    BIAS = "bias"  # f32 [P]: what is added afterwards
    MASK_ROWS = "mask_rows"  # i64 [R, 1]: the rows that a grammar narrows; R is 0 where none does
    MASK = "mask"  # bool [R, vocabulary]: the tokens such a row may take
    LOGPROB_ROWS = "logprob_rows"  # i64 [Q]: the rows whose log-probabilities are wanted; Q is 0 where none are
    TOKEN = "token"  # i64 [N, 1]; -1 where the row's numbers are not finite
    LOGPROB_VALUES = "logprob_values"  # f32 [Q, 1 + alternatives]: the chosen token's, then the likeliest ones'
    LOGPROB_IDS = "logprob_ids"  # i64 [Q, 1 + alternatives]
    LOGITS = "logits"  # f32 [N, vocabulary], in a build made to be verified only
