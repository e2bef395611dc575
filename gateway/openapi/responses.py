"""What answers look like, for the OpenAPI document, and an example of a question and its answer on each chat route."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcAQMAAABIw03XAAAABlBMVEX////cKCi5uRl6AAAAP0lEQVR42mNgwA/kGxiYGBQcGBgY/n9gYGJgYGBgYmTg"
    "YGBiYmCBcrER/xj+MDD9Z/gBE3O4wMDMwCB4AL9dADrHCO32LzN+AAAAAElFTkSuQmCC"
)
"""A red disc on white, 28 by 28 pixels."""


def said(kind: str, meaning: str = "", **more: Any) -> Schema:
    """A field of an answer."""
    return {"type": kind, **({"description": meaning} if meaning else {}), **more}


def fields(*required: str, **properties: Schema) -> Schema:
    """An object with these fields, of which some are always there."""
    return {"type": "object", "required": list(required), "properties": properties}


REQUEST_ID = said("string", "Names the request in the service's log; X-Request-ID is the same.")
_FINISH = said(
    "string",
    "stop: it ended by itself; length: at max_tokens, the context's end, or where its time ran out; "
    "tool_calls: a tool is wanted.",
)
USAGE = said("object", "Tokens of the prompt, of its images, of the answer, and all together.")
TIMINGS = said("object", "Milliseconds of each stage, to the first token, and in all.")
MODEL_NAME = said("string", "The model's name.")
_TIMED_OUT = said("boolean", "True where time ran out and partial_on_timeout was sent; the answer is what there was.")

_VIDEOS = said(
    "array",
    "Of each video, the seconds of the frames that the model sees, their width and height, and their tokens.",
    items={"type": "object"},
)

ANSWERS: dict[str, Schema] = {
    "VisionAnswer": fields(
        *("result", "model", "success", "usage", "finish_reason", "request_id"),
        result=said("string", "The answer."),
        model=MODEL_NAME,
        success=said("boolean", "Always true.", const=True),
        thinking=said("string", "What the model thought, where it was asked to."),
        boxes=said(
            "array",
            "The places that the answer names, in pixels of the images as they were sent, upright.",
            items={"$ref": "#/components/schemas/Box"},
        ),
        logprobs=said("object", "Each token with its log-probability, where that was asked for."),
        videos=_VIDEOS,
        usage=USAGE,
        finish_reason={**_FINISH, "enum": ["stop", "length", "tool_calls"]},
        request_id=REQUEST_ID,
        timings=TIMINGS,
        timed_out=_TIMED_OUT,
    ),
    "Box": fields(
        *("image", "box", "label"),
        image=said("integer", "Which of the request's images, from 0."),
        box=said("array", "x1, y1, x2, y2 in pixels.", items={"type": "integer"}),
        label=said("string", "What the answer calls it; may be empty."),
    ),
    "VisionProblem": fields(
        *("error", "success", "request_id"),
        error=said("string", "What is wrong, in a sentence."),
        success=said("boolean", "Always false.", const=False),
        request_id=REQUEST_ID,
    ),
    "Completion": fields(
        *("id", "object", "created", "model", "choices", "usage"),
        id=said("string", "Names the answer."),
        object={"const": "chat.completion"},
        created=said("integer", "When, in seconds since 1970."),
        model=MODEL_NAME,
        choices=said("array", "One choice: its message, finish_reason and logprobs.", items={"type": "object"}),
        usage=USAGE,
        timings=TIMINGS,
        timed_out=_TIMED_OUT,
        videos=_VIDEOS,
    ),
    "Problem": fields(
        "error",
        error={
            **fields(
                *("message", "type"),
                message=said("string"),
                type=said("string"),
                param={"type": ["string", "null"]},
                code=said("string"),
            ),
            "description": "What is wrong in a sentence (message), its kind (type, code), and which field is (param).",
        },
    ),
    "Health": fields(
        "status",
        status=said("string"),
        model=MODEL_NAME,
        build=said("string", "The digest of the build that is served."),
        reason=said("string", "Why it is not ready."),
    ),
}

EXAMPLES: dict[str, Schema] = {
    "VisionBody": {"image": _IMAGE, "prompt": "What colour is the circle?", "max_tokens": 64, "temperature": 0},
    "VisionAnswer": {
        "result": "Red.",
        "model": "GLM-4.6V-Flash-WEB",
        "success": True,
        "usage": {"prompt_tokens": 27, "image_tokens": 9, "completion_tokens": 3, "total_tokens": 30},
        "finish_reason": "stop",
        "request_id": "9f2c51d0a7b84e6f8d13c5a2e0b47961",
        "timings": {"first_token_ms": 41.3, "total_ms": 58.2},
    },
    "VisionProblem": {
        "error": "The request has no prompt. The field prompt must be a string that is not empty.",
        "success": False,
        "request_id": "9f2c51d0a7b84e6f8d13c5a2e0b47961",
    },
    "CompletionBody": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_IMAGE}"}},
                    {"type": "text", "text": "What colour is the circle?"},
                ],
            }
        ],
        "max_tokens": 64,
        "temperature": 0,
    },
    "Completion": {
        "id": "chatcmpl-9f2c51d0a7b84e6f8d13c5a2e0b47961",
        "object": "chat.completion",
        "created": 1767225600,
        "model": "GLM-4.6V-Flash-WEB",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Red."},
                "finish_reason": "stop",
                "stop_reason": None,
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 27, "completion_tokens": 3, "total_tokens": 30},
    },
}
