"""Runs programs one after another in this one process, so that they load each framework once.

Takes JSON on standard input, the code of each program by name, and writes a line of JSON for each: its name, and what
it printed or how it failed.
"""

import contextlib
import io
import json
import sys
import traceback

for name, code in json.load(sys.stdin).items():
    printed, failure = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            exec(compile(code, name, "exec"), {"__name__": name})
        except BaseException:
            failure = traceback.format_exc()
    print(json.dumps({"name": name, "printed": printed.getvalue(), "failure": failure}), flush=True)
