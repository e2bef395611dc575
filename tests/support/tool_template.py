"""A chat template of ours that knows tools, for tests where the real model's is not at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

_OF_TEXT = """
{%- macro flat(content) -%}
  {%- if content is string %}{{ content }}{% else -%}
    {%- for part in content -%}
      {%- if part.type == 'text' %}{{ part.text }}{% else %}<|begin_of_image|><|image|><|end_of_image|>{% endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
"""
_ASSISTANT = """
    {%- set ns = namespace(thought='', text=flat(message.content)) -%}
    {%- if message.reasoning_content is string -%}
      {%- set ns.thought = message.reasoning_content -%}
    {%- elif '</think>' in ns.text -%}
      {%- set ns.thought = ns.text.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') -%}
      {%- set ns.text = ns.text.split('</think>')[-1].lstrip('\\n') -%}
    {%- endif -%}
    {{- '<|assistant|>\\n<think>' + (ns.thought if loop.index0 > last.question else '') + '</think>\\n' + ns.text -}}
    {%- for call in message.tool_calls or [] -%}
      {%- set call = call.function or call -%}
      {{- '\\n<tool_call>' + call.name + '\\n' -}}
      {%- for key, value in call.arguments.items() -%}
        {{- '<arg_key>' + key + '</arg_key>\\n<arg_value>' -}}
        {{- (value if value is string else value | tojson) + '</arg_value>\\n' -}}
      {%- endfor -%}
      {{- '</tool_call>' -}}
    {%- endfor -%}
"""
TEMPLATE = (
    _OF_TEXT
    + """
{%- set off = enable_thinking is defined and not enable_thinking -%}
{%- set last = namespace(question=-1) -%}
{%- for message in messages if message.role == 'user' -%}
  {%- set last.question = messages.index(message) -%}
{%- endfor -%}
{{- '[gMASK]<sop>' -}}
{%- if tools %}{{ '<|system|>\\n' + (tools | tojson) }}{% endif -%}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}
    {{- '<|system|>\\n' + flat(message.content) -}}
  {%- elif message.role == 'user' -%}
    {{- '<|user|>\\n' + flat(message.content) + ('/nothink' if off else '') -}}
  {%- elif message.role == 'tool' -%}
    {{- '<|observation|>\\n<tool_response>\\n' + flat(message.content) + '\\n</tool_response>' -}}
    {{- '\\n' if message.content is string -}}
  {%- else -%}
"""
    + _ASSISTANT
    + """
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|assistant|>\\n' + ('<think></think>\\n' if off else '') -}}
{%- endif -%}
"""
)


def checkpoint_with_tools(source: Path, folder: Path) -> Path:
    """A copy of a checkpoint, or of a build's checkpoint folder, whose template knows tools."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    return folder


def call_text(name: str, **arguments: object) -> str:
    """A call as the model writes it."""
    written = "".join(
        f"<arg_key>{key}</arg_key>\n<arg_value>{value if isinstance(value, str) else json.dumps(value)}</arg_value>\n"
        for key, value in arguments.items()
    )
    return f"<tool_call>{name}\n{written}</tool_call>"
