"""Tool calls as the model writes them, and a checkpoint whose chat template knows tools."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

_TEMPLATE = Path(__file__).with_name("tool_template.jinja")


def checkpoint_with_tools(source: Path, folder: Path) -> Path:
    """A copy of a checkpoint whose template knows tools."""
    shutil.copytree(source, folder)
    shutil.copy(_TEMPLATE, folder / "chat_template.jinja")
    return folder


def call_text(name: str, **arguments: object) -> str:
    """A call as the model writes it."""
    written = "".join(
        f"<arg_key>{key}</arg_key>\n<arg_value>{value if isinstance(value, str) else json.dumps(value)}</arg_value>\n"
        for key, value in arguments.items()
    )
    return f"<tool_call>{name}\n{written}</tool_call>"
