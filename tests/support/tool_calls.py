"""Tool calls as the model writes them."""

from __future__ import annotations

import json


def call_text(name: str, **arguments: object) -> str:
    """A call as the model writes it."""
    written = "".join(
        f"<arg_key>{key}</arg_key>\n<arg_value>{value if isinstance(value, str) else json.dumps(value)}</arg_value>\n"
        for key, value in arguments.items()
    )
    return f"<tool_call>{name}\n{written}</tool_call>"
