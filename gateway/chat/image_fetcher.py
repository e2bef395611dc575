"""Fetches an image or video that a request names by http(s) URL: from listed hosts only, at no private address."""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from importlib import metadata
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from gateway.chat.image_hosts import PORTS, ImageHosts, is_public, spelled
from gateway.reading.content_encoding import unpacked
from gateway.reading.sent_as import AN_IMAGE, SentAs
from glmserve.errors import InvalidInput, TooLarge

_REDIRECTS = 3
_MOST_URL_CHARS = 8192
"""As web servers take them; urllib keeps those that it has parsed."""
_MOST_SCHEME_CHARS = 1024
_LOOK_UPS = threading.BoundedSemaphore(16)
_PIECE_BYTES = 1 << 16
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]{0,31}://", re.IGNORECASE)
_MOVED = (301, 302, 303, 307, 308)
_NOT_ESCAPED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_KEPT = "/?:@!$&'()*+,;=~%-._[]|"
_PROJECT = "glm-triton"


def is_url(text: str) -> bool:
    """Whether a text names a file that lies elsewhere: base64 holds no colon, and a data URL no slashes after it."""
    return _URL.match(text, 0, _MOST_SCHEME_CHARS) is not None


def user_agent(model: str) -> str:
    """Who asks an image's host: many refuse a request that does not say so."""
    return f"{quote(model, safe='.-_')}/{_version()}"


@cache
def _version() -> str:
    try:
        return metadata.version(_PROJECT)
    except metadata.PackageNotFoundError:
        return "0"


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


class _Answered(Exception):
    """The host answered with a status that brings no file."""


class ImageFetcher:
    """Reads files from listed hosts; a name is resolved once, and the connection goes to the address checked."""

    def __init__(
        self,
        hosts: tuple[str, ...],
        max_bytes: int,
        timeout_s: float,
        is_open: Callable[[str], bool] = is_public,
        private_hosts: tuple[str, ...] = (),
        model: str = "GLM-4.6V-Flash-WEB",
        sent_as: SentAs = AN_IMAGE,
    ) -> None:
        self._hosts = ImageHosts(hosts, private_hosts, is_open)
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._sent_as = sent_as
        self._headers = {"Accept": sent_as.accept, "User-Agent": user_agent(model)}

    def read(self, url: str, field: str, timeout_s: float) -> bytes:
        """The file at a URL; raises TooLarge or the error of what it was sent as, both naming `field`."""
        name = self._sent_as.name
        if not self._hosts:
            raise self._sent_as.error(
                f"The field {field} is a URL, and this service fetches no {name}s: send the {name} itself, as base64 "
                f"or a data:{name}/...;base64, URL. (GLM_GATEWAY_IMAGE_HOSTS lists the hosts that it may fetch from.)",
                field,
            )
        give_up = time.monotonic() + min(timeout_s, self._timeout_s)
        for _ in range(_REDIRECTS + 1):
            parts = self._checked(url, field)
            try:
                found = self._get(parts, give_up, field)
                if isinstance(found, bytes):
                    return found
                url = urljoin(url, found)
            except _Answered as error:
                raise self._sent_as.error(
                    f"The {name} at the URL in {field} could not be fetched: its host answered {error}.", field
                ) from error
            except TimeoutError as error:
                raise self._sent_as.error(
                    f"The {name} at the URL in {field} could not be fetched in time.", field
                ) from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise self._sent_as.error(f"The {name} at the URL in {field} could not be fetched.", field) from error
        raise self._sent_as.error(f"The URL in {field} was redirected more than {_REDIRECTS} times.", field)

    def _checked(self, url: str, field: str) -> SplitResult:
        if len(url) > _MOST_URL_CHARS:
            raise self._sent_as.error(
                f"The URL in {field} has {len(url)} characters; at most {_MOST_URL_CHARS} are accepted. Send the "
                f"{self._sent_as.name} itself, as base64 or a data URL.",
                field,
            )
        try:
            parts = urlsplit(url)
            is_listed = self._hosts.is_listed(parts)
        except ValueError:
            raise self._sent_as.error(f"The field {field} is not a URL.", field) from None
        if not is_listed or parts.username is not None:
            raise self._sent_as.error(
                f"The URL in {field} is not of a host that {self._sent_as.name}s may be fetched from.", field
            )
        return parts

    def _get(self, parts: SplitResult, give_up_s: float, field: str) -> bytes | str:
        """The file, or where it has moved."""
        host, port = spelled(parts.hostname or ""), parts.port or PORTS[parts.scheme]
        connection = http.client.HTTPConnection(host, port)
        site = _connected(self._resolved(parts, host, port, give_up_s, field), port, give_up_s)
        try:
            if parts.scheme == "https":
                site = ssl.create_default_context().wrap_socket(site, server_hostname=host)
            connection.sock = _Clocked(site, give_up_s)
            path = parts.path or "/"
            connection.request("GET", _escaped(f"{path}?{parts.query}" if parts.query else path), headers=self._headers)
            response = connection.getresponse()
            if response.status in _MOVED:
                moved = (response.getheader("Location") or "").encode("latin-1").decode("utf-8", "replace").strip()
                if not moved:
                    raise _Answered(
                        f"{response.status} and does not say where the {self._sent_as.name} is now (Location)"
                    )
                return moved
            if response.status != http.HTTPStatus.OK:
                raise _Answered(response.status)
            return self._body(response, field)
        finally:
            site.close()

    def _resolved(self, parts: SplitResult, host: str, port: int, give_up_s: float, field: str) -> list[str]:
        addresses = resolved(host, port, _left(give_up_s))
        if not all(self._hosts.may_lie_at(parts, address) for address in addresses):
            raise self._sent_as.error(
                f"The URL in {field} leads to an address that {self._sent_as.name}s may not be fetched from.", field
            )
        return addresses

    def _body(self, response: http.client.HTTPResponse, field: str) -> bytes:
        pieces: list[bytes] = []
        count = 0
        while True:
            piece = response.read1(_PIECE_BYTES)
            if not piece:
                break
            pieces.append(piece)
            count += len(piece)
            if count > self._max_bytes:
                raise self._sent_as.too_large(self._max_bytes, field)
        try:
            return unpacked(b"".join(pieces), response.getheader("Content-Encoding") or "", self._max_bytes)
        except TooLarge:
            raise self._sent_as.too_large(self._max_bytes, field) from None
        except InvalidInput as error:
            raise ValueError from error


def _escaped(path: str) -> str:
    """A path and query as they are sent: what is escaped already stays, and blanks and other scripts become escapes."""
    return quote(_NOT_ESCAPED.sub("%25", path), safe=_KEPT)


def _connected(addresses: list[str], port: int, give_up_s: float) -> socket.socket:
    """A connection to the first address that takes one: this machine may not reach every kind of address."""
    for address in addresses[:-1]:
        try:
            return socket.create_connection((address, port), _left(give_up_s) / 2)
        except OSError:
            continue
    return socket.create_connection((addresses[-1], port), _left(give_up_s))


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
