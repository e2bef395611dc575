"""Every limit that is not a deployment's choice, named once."""

from __future__ import annotations

SAMPLER_CANDIDATES = 64
"""Sampling looks at this many of the likeliest tokens (the TopK in the decoder graph)."""

MAX_LOGPROBS = 20
"""Likeliest tokens that a request may have listed with each token of its answer."""

MAX_STOP_TOKEN_IDS = 64
MAX_LOGIT_BIAS = 1024
LARGEST_LOGIT_BIAS = 100.0
MAX_BAD_WORDS = 128
MAX_ALLOWED_TOKEN_IDS = 16_384
"""Token ids that one request may end at, bias, and be narrowed to; and words that it may rule out."""

MAX_ANSWERS = 16
"""Answers to one prompt (`n`)."""

MAX_PROMPTS = 32
"""Prompts of one request to /v1/completions."""

MAX_GRAMMAR_BYTES = 64 * 1024
"""A JSON Schema, a regular expression, a list of choices or a grammar."""

MAX_RULES_BYTES = 512 * 1024
"""All rules of one answer, every tool's parameters among them."""

GRAMMAR_COMPILE_CPU_S = 1.0
GRAMMAR_COMPILE_MEMORY_BYTES = 512 * 1024**2
"""What turning a JSON Schema into a grammar may cost; more is the caller's 400."""

MAX_KEPT_GRAMMARS = 64

MAX_ASPECT_RATIO = 200
"""Longest side over shortest side; the model family's own processor refuses more."""

MAX_NEW_TOKENS = 32_768
"""Upper bound of `max_tokens` in a request; the context may bound it further."""

MAX_IMAGES = 16
"""Images in one request."""

MAX_VIDEOS = 4
"""Videos in one request."""

MAX_VIDEO_FRAMES = 640
"""Frames of one video that the model sees; its own processor takes no more."""

MAX_PARTS = 512
"""Texts and images in one message."""

MAX_TOOLS = 128
"""Tools that a request offers the model."""

MAX_CALLS = 128
"""Tool calls in one message."""

MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 256

RESPONSE_TIMEOUT_S = 10.0
"""A stream that stays silent this long between two messages is taken for dead."""

REQUEST_HEAD_TIMEOUT_S = 10.0
"""Time in which a request's line and headers must have arrived."""

CANARY_TIMEOUT_S = 10.0
"""Whoever asks for readiness waits so long for the canary's answer, unless the gateway's setting says otherwise."""

DEADLINE_S = 30.0
"""An answer may take so long, unless the gateway's setting says otherwise."""

FIRST_CANARY_S = 900.0
"""The first canary may take so long: it shows how fast the machine is. START_TIMEOUT_S may end it sooner."""

GRACEFUL_TIMEOUT_S = 30
"""Time for running requests to finish at a shutdown, unless the gateway's setting says otherwise."""

ANSWER_GRACE_S = 5.0
"""Time for a client to have read its answer once its body's time and its deadline are both over."""

FLOOD_WAIT = 0.4
FLOOD_WAIT_MEANING = (
    "In a flood (requests keep arriving faster than they are answered), the longest wait before an answer begins, as a "
    "multiple of the mean time that a request takes; who would wait longer is refused at once."
)

LARGEST_KEPT_BUFFER_BYTES = 16 * 1024**2
"""Freed buffers up to this size are used again; those of a 12-megapixel photo are 9 MB once it was made to fit."""

MOST_FREE_BYTES = 32 * 1024**2
"""Free memory that an arena of the C library keeps; the rest goes back to the kernel."""

BLS_THREADS = 256
"""Threads of each Triton model that ask another one (Triton's own default is 32): each waits for its whole answer."""
WHOLE_PLACES = BLS_THREADS - 8
"""Requests over plain HTTP at a time; what is left is for those that cancel."""
