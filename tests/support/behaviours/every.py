"""All behaviours, by group."""

from __future__ import annotations

from behaviours import (
    chat,
    completions,
    fields,
    images,
    message_fields,
    messages,
    mistakes,
    operations,
    response_fields,
    responses,
    shapes,
    streams,
    thoughts,
    tools,
    videos,
)
from behaviours.declined import DECLINED
from behaviours.listed import Behaviour

GROUPS: dict[str, list[Behaviour]] = {
    "Chat": chat.BEHAVIOURS,
    "Fields of an answer": fields.BEHAVIOURS,
    "Streams": streams.BEHAVIOURS,
    "Images": images.BEHAVIOURS,
    "Videos": videos.BEHAVIOURS,
    "Thinking": thoughts.BEHAVIOURS,
    "Tools": tools.BEHAVIOURS,
    "Structured output": shapes.BEHAVIOURS,
    "Mistakes": mistakes.BEHAVIOURS,
    "Completions": completions.BEHAVIOURS,
    "Responses": [*responses.BEHAVIOURS, *response_fields.BEHAVIOURS],
    "Messages": [*messages.BEHAVIOURS, *message_fields.BEHAVIOURS],
    "Tokens, models and operations": operations.BEHAVIOURS,
}
HOLD = sum(map(len, GROUPS.values()))
"""How many are done here."""
ASKED = HOLD + sum(each.count for each in DECLINED)
"""How many are asked for."""
