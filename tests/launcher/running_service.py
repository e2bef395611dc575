"""A running `make serve`: its processes, and a client of it."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request

from launched import WAIT_S, Launcher
from servers import children_of

from bench import usage
from launcher.supervision.vital_signs import stubs_of

SHORT = 4


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
        for pid in sorted(usage.children_of(self.launcher.process.pid)):
            if any(program in word for word in usage.words_of(pid)):
                return pid
        raise AssertionError(program)

    def stub(self, which: int) -> int:
        return sorted(stub.pid for stub in stubs_of(self.child("tritonserver")))[which]

    def worker(self) -> int:
        return children_of(self.child("gunicorn"))[0]

    def ask(self, max_tokens: int = SHORT, is_stream: bool = False) -> tuple[int, str, str]:
        """Status, Retry-After and body; status 0 where nobody answered."""
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
