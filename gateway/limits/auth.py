"""Who sends a request: the address behind our own proxies, whether it is allowed, and whose API key it carries."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass

from werkzeug.wrappers import Request

from gateway.errors import Forbidden, Unauthorized
from gateway.limits.api_keys import ApiKey, KeyStore, Role
from gateway.limits.cross_site import check_host, check_origin, has_passed_a_proxy, is_local_host, is_loopback_address
from gateway.settings import GatewaySettings, is_loopback

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_OPEN_PATHS = ("/", "/docs", "/openapi.json", "/health/live", "/health/ready")
_OPEN_FOLDERS = ("/page/",)
_ROLES: dict[str, tuple[Role, ...]] = {"/metrics": ("metrics", "admin")}
_ANY_CHAT: tuple[Role, ...] = ("user", "admin")


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request that may be answered; without a key it is known by its address only."""

    address: str
    key: ApiKey | None
    is_exempt: bool = False
    """On this machine, without a key, and the settings say that such callers have no rate limit."""

    @property
    def name(self) -> str | None:
        return self.key.name if self.key else None

    @property
    def cache_scope(self) -> int:
        """Separates caches: what one key's requests have cached is never used for another's."""
        if self.key is None:
            return 0
        digest = hashlib.sha256(self.key.sha256.encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


class Authenticator:
    """Checks addresses and API keys; shared between threads."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Raises BadKeyFile when the keys cannot be read."""
        self._keys = KeyStore(settings.keys_file) if settings.keys_file else None
        self._networks: list[Network] = [ipaddress.ip_network(text) for text in settings.allowed_addresses]
        self._proxies = settings.trusted_proxies
        self._exempts_loopback = settings.exempt_loopback
        self._cors_origins = settings.cors_origins
        is_open = settings.keys_file is None and not settings.no_auth and is_loopback(settings.bind)
        self._is_open_to_browsers = is_open and not settings.bind.startswith("unix:")

    def client_address(self, request: Request) -> str:
        """The address a request comes from; raises Forbidden when that is not in the allowed networks."""
        address = _forwarded_address(request, self._proxies)
        if self._networks and not any(_is_in(address, network) for network in self._networks):
            raise Forbidden(f"The address {address} may not use this service.")
        return address

    def check_probe(self, request: Request) -> None:
        """Raises Forbidden for a health check from elsewhere than the allowed networks or this machine itself."""
        if not _is_from_here(request, _forwarded_address(request, self._proxies)):
            self.client_address(request)

    def check_site(self, request: Request) -> None:
        """Raises Forbidden for another site's page, where no keys keep such pages away."""
        if self._is_open_to_browsers:
            check_host(request)
            check_origin(request, self._cors_origins)

    def is_exempt(self, request: Request, address: str) -> bool:
        """Whether a request without a key has no rate limit: from this machine, to its own name, through no proxy."""
        return self._exempts_loopback and _is_from_here(request, address) and is_local_host(request)

    def authenticate(self, request: Request, address: str, is_exempt: bool) -> Caller:
        """The caller of a request, exempt without a key where it is; raises Forbidden or Unauthorized."""
        path = request.path
        if self._keys is None or path in _OPEN_PATHS or path.startswith(_OPEN_FOLDERS):
            return Caller(address, None, is_exempt)
        secret = _secret(request)
        if secret is None:
            raise Unauthorized("An API key is needed: send it as Authorization: Bearer <key> or as X-API-Key.")
        key = self._keys.find(secret)
        if key is None:
            raise Unauthorized("This API key is not valid.")
        if key.role not in _ROLES.get(path, _ANY_CHAT):
            raise Forbidden(f"A key of role {key.role} may not do this.")
        return Caller(address, key)


def _forwarded_address(request: Request, trusted_proxies: int) -> str:
    """The address that the outermost of our own proxies saw; what stands further left in the header may be forged."""
    peer = request.remote_addr or "127.0.0.1"  # a Unix socket has no address
    if trusted_proxies == 0:
        return peer
    hops = [hop.strip() for header in request.headers.getlist("X-Forwarded-For") for hop in header.split(",")]
    if len(hops) < trusted_proxies:
        return peer
    try:
        return str(ipaddress.ip_address(hops[-trusted_proxies].partition("%")[0]))  # a zone is the proxy's own
    except ValueError:
        return peer


def _secret(request: Request) -> str | None:
    sent = request.headers.get("X-API-Key")
    if sent:
        return sent
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _is_in(address: str, network: Network) -> bool:
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip) in network


def _is_from_here(request: Request, address: str) -> bool:
    """Whether a request comes from this machine, and not from elsewhere through a proxy that nobody told us of."""
    return is_loopback_address(address) and not has_passed_a_proxy(request)
