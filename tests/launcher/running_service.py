"""A running `make serve`: its processes, and a client of it."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable

from launched import WAIT_S, Launcher

from bench import usage
from launcher.supervision import vital_signs

SHORT = 4
UNLIMITED = {f"GLM_GATEWAY_{whose}REQUESTS_PER_MINUTE": "100000" for whose in ("", "ADDRESS_")}
"""Settings for tests that ask again and again until they are answered."""


class RunningService:
    """A running `make serve` and its processes."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        launcher.wait_for("Ctrl-C ends the service.")
        found = re.search(r"Ready: (\S+)", launcher.said)
        assert found
        self.url = found[1]
        self.curl = next(line for line in launcher.lines if line.startswith("printf"))

    def child(self, program: str) -> int:
        """The launcher's own child with this in its command line."""
        for pid in sorted(vital_signs.children_of(self.launcher.process.pid)):
            if any(program in word for word in usage.words_of(pid)):
                return pid
        raise AssertionError(program)

    def stub(self, which: int) -> int:
        return sorted(stub.pid for stub in vital_signs.stubs_of(self.child("tritonserver")))[which]

    def worker(self) -> int:
        return min(usage.descendants(self.child("gunicorn")))

    def is_answering(self) -> bool:
        """Whether an answer is under way."""
        with urllib.request.urlopen(f"{self.url}/load", timeout=WAIT_S) as reply:
            return int(json.load(reply)["running"]) > 0

    def ask(
        self, max_tokens: int = SHORT, is_stream: bool = False, begun: Callable[[], object] = lambda: None
    ) -> tuple[int, str, str]:
        """Status, Retry-After and body; status 0 where nobody answered. `begun` is called when the head has come, which
        a stream sends with its first words."""
        body = {
            "model": "GLM-4.6V-Flash-WEB",
            "messages": [{"role": "user", "content": "Say something."}],
            "max_tokens": max_tokens,
            "stream": is_stream,
        }
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
                begun()
                return reply.status, "", reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Retry-After", ""), error.read().decode()
        except OSError:
            return 0, "", ""

    def answers_curl(self) -> bool:
        """Whether the printed line gets an answer. Just after its master's death an orphaned worker may take a request
        and die."""
        done = subprocess.run(["bash", "-c", self.curl], capture_output=True, check=False, timeout=WAIT_S)
        return done.returncode == 0 and json.loads(done.stdout).get("success") is True
