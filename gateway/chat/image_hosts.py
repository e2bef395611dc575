"""Which hosts images may be fetched from, under whatever spelling, and at which addresses these may lie."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from urllib.parse import SplitResult

import idna

from gateway.settings import Network, private_host

PORTS = {"http": 80, "https": 443}
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
_INTRANETS = tuple(
    ipaddress.ip_network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
_MOST_NAME_CHARS = 253
Networks = tuple[Network, ...]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet, and carries no IPv4 address that a gateway would go on to."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and any(ip in network for network in _CARRIERS):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _private_host(text: str) -> tuple[str, Networks]:
    """A host and the networks where it may lie, from `host[:port][=network]`.

    Without a network these are the private ones of RFC 1918 and RFC 4193: never this machine, never link-local
    addresses, where clouds answer with credentials.
    """
    name, network = private_host(text)
    return spelled(name), tuple(_INTRANETS) if network is None else (network,)


def spelled(host: str) -> str:
    """A host with or without a port in the one spelling that is looked up: lower case, and IDNA's for other scripts."""
    name, colon, port = host.lower().rpartition(":") if host.count(":") == 1 else (host.lower(), "", "")
    name = name.removesuffix(".")
    if not name.isascii():
        if len(name) > _MOST_NAME_CHARS:
            raise ValueError("no host")
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError:
            raise ValueError("no host") from None
    return f"{name}{colon}{port}"


class ImageHosts:
    """The hosts of one service; those that are private are listed apart, each with its networks."""

    def __init__(
        self, hosts: Iterable[str], private_hosts: Iterable[str] = (), is_open: Callable[[str], bool] = is_public
    ) -> None:
        self._public = frozenset(map(spelled, hosts))
        self._private = dict(map(_private_host, private_hosts))
        self._is_open = is_open

    def __bool__(self) -> bool:
        return bool(self._public or self._private)

    def is_listed(self, parts: SplitResult) -> bool:
        """Whether a URL's host is listed, with this port if it has one of its own; raises ValueError for no URL."""
        return parts.scheme in PORTS and any(name in self._public or name in self._private for name in _names(parts))

    def may_lie_at(self, parts: SplitResult, address: str) -> bool:
        """Whether the listed host of a URL may be reached at an address that its name led to."""
        networks = next((self._private[name] for name in _names(parts) if name in self._private), None)
        if networks is None:
            return self._is_open(address)
        ip = ipaddress.ip_address(address)
        return is_public(address) or any(ip in network for network in networks)


def _names(parts: SplitResult) -> list[str]:
    """How a URL's host may be listed: by its name where the port is the scheme's own, and with its port."""
    name, port = spelled(parts.hostname or ""), parts.port
    name = f"[{name}]" if ":" in name else name
    own = [name, name.strip("[]")] if port in (None, PORTS.get(parts.scheme)) else []
    return [*own, f"{name}:{port or PORTS.get(parts.scheme)}"]
