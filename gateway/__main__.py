"""`python -m gateway settings` prints every setting as the markdown table the README shows."""

from __future__ import annotations

import sys

from gateway.settings import settings_table

if __name__ == "__main__":
    if sys.argv[1:] != ["settings"]:
        sys.exit("usage: python -m gateway settings")
    print(settings_table(), end="")
