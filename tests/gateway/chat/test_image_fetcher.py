"""Pictures by URL: only from listed hosts, never from a private address, and within bounds."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import zlib
from collections.abc import Generator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from gateway.chat.image_fetcher import ImageFetcher, is_public
from gateway.chat.image_hosts import ImageHosts
from gateway.settings import GatewaySettings
from glmserve.errors import BadImage, TooLarge

PACKED = {"gzip": gzip.compress(b"x" * 100), "deflate": zlib.compress(b"x" * 100), "br": b"no brotli", "zstd": b"x"}
DRIPS_S = 6
DRIPS = {
    "drip-head": b"HTTP/1.1 200 OK\r\nX: ",
    "drip-length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
}
NO_URLS = {
    "bracket": "http://[::1/",
    "letters": "http://[zz]/",
    "port": "http://a:99999/",
    "words": "http://a:b/",
    "other": "http://\xff\x01/",
}


class Site(BaseHTTPRequestHandler):
    """/file is a file, /n redirects to /n-1, /away leaves, /slow never ends, /drip-… sends five bytes a second."""

    asked: ClassVar[list[tuple[str, dict[str, str]]]] = []

    def do_GET(self) -> None:
        step = self.path[1:]
        Site.asked.append((self.path, dict(self.headers)))
        if step in PACKED:
            self.send_response(200)
            self.send_header("Content-Encoding", step)
            self.end_headers()
            self.wfile.write(PACKED[step])
            return
        if step in DRIPS:
            self.wfile.write(DRIPS[step])
            with suppress(OSError):
                for _ in range(DRIPS_S * 5):
                    self.wfile.write(b"0")
                    threading.Event().wait(0.2)
            return
        is_file = step in ("file", "slow") or self.path.startswith("/%E5%9B%BE")
        self.send_response(200 if is_file else 404 if step == "none" else 302)
        if step.isdecimal():
            self.send_header("Location", f"/{int(step) - 1}" if int(step) else "/file")
        if step == "round":
            self.send_header("Location", "/\u56fe 1.png".encode().decode("latin-1"))
        if step == "blank":
            self.send_header("Location", " ")
        if step == "away":
            self.send_header("Location", "http://169.254.169.254/latest")
        if step in NO_URLS:
            self.send_header("Location", NO_URLS[step])
        self.end_headers()
        if is_file:
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


def test_a_url_of_megabytes_is_refused_before_anything_keeps_it(site: str) -> None:
    """urllib keeps the last 128 that it has parsed."""
    before = urlsplit.cache_info().currsize  # type: ignore[attr-defined]
    with pytest.raises(BadImage, match=r"has 1000\d{3} characters; at most 8192"):
        reader(site).read(f"http://{site}/{'a' * 1_000_000}", "image", 5)
    assert urlsplit.cache_info().currsize == before  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ["lost", "blank"])
def test_a_redirect_that_says_no_place_is_told_so(site: str, path: str) -> None:
    with pytest.raises(BadImage, match=r"its host answered 302 and does not say where the image is now \(Location\)"):
        reader(site).read(f"http://{site}/{path}", "image", 5)


@pytest.mark.parametrize("step", NO_URLS)
def test_a_redirect_to_what_is_no_url_is_a_bad_image(site: str, step: str) -> None:
    with pytest.raises(BadImage, match="image"):
        reader(site).read(f"http://{site}/{step}", "image", 5)


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
    assert time.monotonic() - began < DRIPS_S / 2


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


@pytest.mark.slow
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


def test_a_host_is_told_who_asks(site: str) -> None:
    Site.asked.clear()
    reader(site).read(f"http://{site}/file", "image", 5)
    ((_, headers),) = Site.asked
    assert headers["User-Agent"].startswith("GLM-4.6V-Flash-WEB/") and headers["User-Agent"].isascii()
    assert headers["Host"] == site and headers["Accept"] == "image/*"


@pytest.mark.parametrize("path", ["图 1.png", "%E5%9B%BE%201.png", "图%201.png?q=图 &r=100%#top"])
def test_blanks_and_other_scripts_in_a_path_are_escaped(site: str, path: str) -> None:
    Site.asked.clear()
    assert reader(site).read(f"http://{site}/{path}", "image", 5) == b"x" * 100
    assert Site.asked[0][0] in ("/%E5%9B%BE%201.png", "/%E5%9B%BE%201.png?q=%E5%9B%BE%20&r=100%25")


def test_a_redirect_may_lead_to_such_a_path(site: str) -> None:
    assert reader(site).read(f"http://{site}/round", "image", 5) == b"x" * 100


@pytest.mark.parametrize("way", ["gzip", "deflate"])
def test_a_compressed_picture_is_unpacked_within_its_limit(site: str, way: str) -> None:
    assert reader(site).read(f"http://{site}/{way}", "image", 5) == b"x" * 100
    with pytest.raises(TooLarge, match="image holds more than 99"):
        reader(site, max_bytes=99).read(f"http://{site}/{way}", "image", 5)


@pytest.mark.parametrize("way", ["br", "zstd"])
def test_what_cannot_be_unpacked_is_a_bad_image(site: str, way: str) -> None:
    with pytest.raises(BadImage, match="could not be fetched"):
        reader(site).read(f"http://{site}/{way}", "image", 5)


def test_the_status_of_a_host_that_refuses_is_told(site: str) -> None:
    with pytest.raises(BadImage, match="its host answered 404"):
        reader(site).read(f"http://{site}/none", "image", 5)


@pytest.mark.parametrize(
    ("listed", "url", "is_listed"),
    [
        ("bücher.example", "http://bücher.example/a.png", True),
        ("bücher.example", "http://xn--bcher-kva.example/a.png", True),
        ("xn--bcher-kva.example", "https://BÜCHER.example/a.png", True),
        ("图片.example:8080", "http://图片.example:8080/", True),
        ("图片.example:8080", "http://图片.example/", False),
        ("a.example", "http://A.EXAMPLE./x", True),
        ("a.example", "http://a.example:443/x", False),
        ("a.example", "http://ａ.example/x", True),
        ("127.0.0.1", "http://１２７.0.0.1/x", True),
        ("a.example", "http://a.example.evil/x", False),
        ("a.example", "ftp://a.example/x", False),
        ("[fd00::1]:9000", "http://[fd00::1]:9000/x", True),
        ("fd00::1", "http://[fd00::1]/x", True),
    ],
)
def test_hosts_are_known_under_every_spelling(listed: str, url: str, is_listed: bool) -> None:
    assert ImageHosts((listed,)).is_listed(urlsplit(url)) is is_listed


@pytest.mark.parametrize(
    ("private", "address", "is_allowed"),
    [
        ("minio.internal", "10.1.2.3", True),
        ("minio.internal", "192.168.7.7", True),
        ("minio.internal", "fd00::7", True),
        ("minio.internal", "8.8.8.8", True),
        ("minio.internal", "127.0.0.1", False),
        ("minio.internal", "::1", False),
        ("minio.internal", "169.254.169.254", False),
        ("minio.internal", "100.100.100.200", False),
        ("minio.internal", "fe80::1", False),
        ("minio.internal", "::ffff:10.0.0.1", False),
        ("minio.internal=10.1.0.0/16", "10.1.2.3", True),
        ("minio.internal=10.1.0.0/16", "10.2.2.3", False),
        ("minio.internal=127.0.0.0/8", "127.0.0.1", True),
    ],
)
def test_a_private_host_may_lie_in_its_networks_and_nowhere_else(private: str, address: str, is_allowed: bool) -> None:
    hosts = ImageHosts(("cdn.example",), (private,))
    inside, outside = urlsplit("http://minio.internal/a.png"), urlsplit("http://cdn.example/a.png")
    assert hosts.is_listed(inside) and hosts.may_lie_at(inside, address) is is_allowed
    assert not hosts.may_lie_at(outside, "10.1.2.3")


def test_a_private_host_is_read_and_its_setting_is_checked(site: str) -> None:
    settings = GatewaySettings(image_private_hosts=f"{site}=127.0.0.0/8")
    fetcher = ImageFetcher((), 1000, 5, private_hosts=settings.image_private_hosts)
    assert fetcher.read(f"http://{site}/1", "image", 5) == b"x" * 100
    with pytest.raises(BadImage, match="not of a host"):
        fetcher.read(f"http://{site}/away", "image", 5)
    for wrong in ("=10.0.0.0/8", "a.example=10.0.0.0/33", "a.example=x"):
        with pytest.raises(ValueError, match="image_private_hosts"):
            GatewaySettings(image_private_hosts=wrong)


def test_a_name_that_leads_elsewhere_the_second_time_is_not_asked_twice(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: what was checked is what is connected to, and a redirect's name is looked up and checked again."""
    name, port = "minio.internal", int(site.rpartition(":")[2])
    answers = ["127.0.0.1", "169.254.169.254"]

    def look_up(host: str, port: int, *_: object, **__: object) -> list[object]:
        return [(2, 1, 6, "", (answers.pop(0) if host == name else host, port))]

    monkeypatch.setattr("gateway.chat.image_fetcher.socket.getaddrinfo", look_up)
    fetcher = ImageFetcher((), 1000, 5, private_hosts=(f"{name}:{port}=127.0.0.0/8",))
    with pytest.raises(BadImage, match="leads to an address"):
        fetcher.read(f"http://{name}:{port}/0", "image", 5)
    assert answers == []


def test_a_host_with_an_address_that_cannot_be_reached_is_asked_at_its_next(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(site.rpartition(":")[2])
    found = [(10, 1, 6, "", ("::1", port, 0, 0)), (2, 1, 6, "", ("127.0.0.1", port))]
    monkeypatch.setattr("gateway.chat.image_fetcher.socket.getaddrinfo", lambda *_, **__: found)
    fetcher = ImageFetcher((f"two.example:{port}",), 1000, 5, is_open=lambda _: True)
    real, tried = socket.create_connection, list[str]()

    def connect(address: tuple[str, int], timeout_s: float) -> socket.socket:
        tried.append(address[0])
        if address[0] == "::1":
            raise OSError
        return real(("127.0.0.1", address[1]), timeout_s)

    monkeypatch.setattr("gateway.chat.image_fetcher.socket.create_connection", connect)
    assert fetcher.read(f"http://two.example:{port}/file", "image", 5) == b"x" * 100
    assert tried == ["::1", "127.0.0.1"]
