"""Pictures by URL: only from listed hosts, never from a private address, and within bounds."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gateway.chat.image_fetcher import ImageFetcher, is_public
from glmserve.errors import BadImage, TooLarge

DRIPS = {
    "drip-head": b"HTTP/1.1 200 OK\r\nX: ",
    "drip-length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
}


class Site(BaseHTTPRequestHandler):
    """/file is a file, /n redirects to /n-1, /away leaves, /slow never ends, /drip-… sends five bytes a second."""

    def do_GET(self) -> None:
        step = self.path[1:]
        if step in DRIPS:
            self.wfile.write(DRIPS[step])
            with suppress(OSError):
                for _ in range(15):
                    self.wfile.write(b"0")
                    threading.Event().wait(0.2)
            return
        self.send_response(200 if step in ("file", "slow") else 404 if step == "none" else 302)
        if step.isdecimal():
            self.send_header("Location", f"/{int(step) - 1}" if int(step) else "/file")
        if step == "away":
            self.send_header("Location", "http://169.254.169.254/latest")
        self.end_headers()
        if step in ("file", "slow"):
            self.wfile.write(b"x" * 100)
        if step == "slow":
            threading.Event().wait(1)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def site() -> Generator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def reader(site: str, max_bytes: int = 1000, timeout_s: float = 5) -> ImageFetcher:
    return ImageFetcher((site,), max_bytes, timeout_s, is_open=lambda _: True)


def test_a_listed_host_is_read_through_a_few_redirects(site: str) -> None:
    assert reader(site).read(f"http://{site}/file", "image", 5) == b"x" * 100
    assert reader(site).read(f"http://{site}/2", "image", 5) == b"x" * 100


@pytest.mark.parametrize("path", ["7", "away", "none"])
def test_too_many_redirects_one_elsewhere_or_nothing_is_a_bad_image(site: str, path: str) -> None:
    with pytest.raises(BadImage, match="image"):
        reader(site).read(f"http://{site}/{path}", "image", 5)


def test_a_file_that_is_too_large_is_not_read_to_its_end(site: str) -> None:
    with pytest.raises(TooLarge):
        reader(site, max_bytes=99).read(f"http://{site}/file", "image", 5)


def test_a_slow_file_is_given_up(site: str) -> None:
    with pytest.raises(BadImage, match="fetched"):
        reader(site, timeout_s=0.2).read(f"http://{site}/slow", "image", 5)


@pytest.mark.parametrize("path", ["drip-head", "drip-length"])
def test_a_site_that_drips_is_given_up_when_its_time_is_over(site: str, path: str) -> None:
    began = time.monotonic()
    with pytest.raises(BadImage, match="fetched"):
        reader(site, timeout_s=0.4).read(f"http://{site}/{path}", "image", 5)
    assert time.monotonic() - began < 1


def test_a_private_address_is_refused_even_where_its_name_is_listed(site: str) -> None:
    with pytest.raises(BadImage, match="address"):
        ImageFetcher((site,), 1000, 5).read(f"http://{site}/file", "image", 5)


@pytest.mark.parametrize(
    "url",
    ["http://other.example/x", "ftp://a.example/x", "http://u:p@a.example/x", "http://a.example:99/", "http://[::1"],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(BadImage):
        ImageFetcher(("a.example",), 1000, 5).read(url, "image", 5)


@pytest.mark.parametrize(
    ("address", "public"),
    [("8.8.8.8", True), ("10.0.0.1", False), ("169.254.169.254", False), ("::1", False), ("100.64.0.1", False)],
)
def test_private_addresses_are_known(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    "address",
    [
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2002:808:808::1",
        "2001:0:4136:e378::1",
        "fec0::1",
        "::ffff:10.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:8.8.8.8",
        "::127.0.0.1",
        "::",
        "240.0.0.1",
        "100.64.0.1",
        "255.255.255.255",
        "ff02::1",
        "fe80::1",
        "fc00::1",
    ],
)
def test_an_address_that_may_lead_inside_is_not_public(address: str) -> None:
    """NAT64, 6to4, Teredo and mapped addresses carry an IPv4 address, and whoever translates them goes there."""
    assert not is_public(address)


def test_a_name_that_is_looked_up_for_ever_ends_with_the_requests_time(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hangs(*_: object, **__: object) -> list[object]:
        over.wait(10)
        return []

    monkeypatch.setattr("gateway.chat.image_fetcher.socket.getaddrinfo", hangs)
    fetcher = ImageFetcher(("slow.example",), 1000, 5.0)
    before, began = threading.active_count(), time.monotonic()
    for _ in range(24):  # more than ever hang at a time
        with pytest.raises(BadImage, match="could not be fetched"):
            fetcher.read("http://slow.example/a.png", "image", 0.05)
    assert time.monotonic() - began < 4
    assert threading.active_count() - before <= 16
    over.set()
    while threading.active_count() > before:
        time.sleep(0.01)
