"""Fetches a picture that a request names by http(s) URL: from listed hosts only, never from a private address."""

from __future__ import annotations

import http.client
import io
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from glmserve.errors import BadImage, TooLarge

_REDIRECTS = 3
_LOOK_UPS = threading.BoundedSemaphore(16)
_PORTS = {"http": 80, "https": 443}
_PIECE_BYTES = 1 << 16
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]{0,31}://", re.IGNORECASE)
_CARRIERS = [
    ipaddress.IPv6Network(network)
    for network in (
        "::/96",  # IPv4-compatible
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64, local
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "fec0::/10",  # site-local
    )
]
_MOVED = (301, 302, 303, 307, 308)


def is_url(text: str) -> bool:
    """Whether a text names a picture that lies elsewhere: base64 holds no colon, and a data URL no slashes after it."""
    return _URL.match(text) is not None


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet, and carries no IPv4 address that a gateway would go on to."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and any(ip in network for network in _CARRIERS):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def resolved(host: str, port: int, timeout_s: float) -> list[str]:
    """A name's addresses; raises OSError, which TimeoutError is one of.

    The C library has no time limit of its own. A look-up that hangs keeps its thread; when all are taken, so that no
    more threads are made, looking up fails until the C library gives one of them up.
    """
    if not _LOOK_UPS.acquire(timeout=timeout_s):
        raise TimeoutError
    found: Future[list[str]] = Future()

    def look_up() -> None:
        try:
            found.set_result([str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except Exception as error:  # goes to whoever waits
            found.set_exception(error)
        finally:
            _LOOK_UPS.release()

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    return found.result(timeout_s)


class ImageFetcher:
    """Reads pictures from `hosts`; a name is resolved once, and the connection goes to the address that was checked."""

    def __init__(
        self, hosts: tuple[str, ...], max_bytes: int, timeout_s: float, is_open: Callable[[str], bool] = is_public
    ) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._is_open = is_open

    def read(self, url: str, field: str, timeout_s: float) -> bytes:
        """The file at a URL; raises BadImage or TooLarge, both naming `field`."""
        if not self._hosts:
            raise BadImage(
                f"The field {field} is a URL, and this service fetches no pictures: send the picture itself, as base64 "
                "or a data:image/...;base64, URL. (GLM_GATEWAY_IMAGE_HOSTS lists the hosts that it may fetch from.)",
                field,
            )
        give_up = time.monotonic() + min(timeout_s, self._timeout_s)
        for _ in range(_REDIRECTS + 1):
            parts = self._checked(url, field)
            try:
                found = self._get(parts, give_up, field)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise BadImage(f"The picture at the URL in {field} could not be fetched.", field) from error
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise BadImage(f"The URL in {field} was redirected more than {_REDIRECTS} times.", field)

    def _checked(self, url: str, field: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise BadImage(f"The field {field} is not a URL.", field) from None
        name = (parts.hostname or "").lower()
        listed = (name in self._hosts and port in (None, _PORTS.get(parts.scheme))) or f"{name}:{port}" in self._hosts
        if parts.scheme not in _PORTS or not listed or parts.username is not None:
            raise BadImage(f"The URL in {field} is not of a host that pictures may be fetched from.", field)
        return parts

    def _get(self, parts: SplitResult, give_up_s: float, field: str) -> bytes | str:
        """The file, or where it has moved."""
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        address = self._resolved(host, port, give_up_s, field)
        connection = http.client.HTTPConnection(host, port)
        site = socket.create_connection((address, port), _left(give_up_s))
        try:
            if parts.scheme == "https":
                site = ssl.create_default_context().wrap_socket(site, server_hostname=host)
            connection.sock = _Clocked(site, give_up_s)
            path = parts.path or "/"
            connection.request("GET", f"{path}?{parts.query}" if parts.query else path, headers={"Accept": "image/*"})
            response = connection.getresponse()
            if response.status in _MOVED:
                return response.getheader("Location") or ""
            if response.status != http.HTTPStatus.OK:
                raise ValueError(response.status)
            return self._body(response, field)
        finally:
            site.close()

    def _resolved(self, host: str, port: int, give_up_s: float, field: str) -> str:
        addresses = resolved(host, port, _left(give_up_s))
        if not all(self._is_open(address) for address in addresses):
            raise BadImage(f"The URL in {field} leads to an address that pictures may not be fetched from.", field)
        return addresses[0]

    def _body(self, response: http.client.HTTPResponse, field: str) -> bytes:
        pieces: list[bytes] = []
        count = 0
        while True:
            piece = response.read1(_PIECE_BYTES)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
            count += len(piece)
            if count > self._max_bytes:
                raise TooLarge(f"The image holds more than {self._max_bytes} bytes.", field)


class _Clocked(io.RawIOBase):
    """A socket as http.client uses one, whose time is for all its reads together; its maker closes the socket.

    A socket's own timeout begins anew with each byte of a line or of a chunk's length.
    """

    def __init__(self, site: socket.socket, give_up_s: float) -> None:
        self._site = site
        self._give_up_s = give_up_s

    def sendall(self, data: bytes) -> None:
        self._site.settimeout(_left(self._give_up_s))
        self._site.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Clocked(self._site, self._give_up_s))  # http.client closes this one before reading

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._site.settimeout(_left(self._give_up_s))
        return self._site.recv_into(buffer)


def _left(give_up_s: float) -> float:
    left = give_up_s - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
