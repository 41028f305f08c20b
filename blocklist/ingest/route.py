"""How a feed's hosts are reached: directly or through a proxy, trusting whom, showing which certificate."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace


class Route(msgspec.Struct, frozen=True):
    """`proxy` is "direct", "environment" or a URL that may hold `user:password`.

    `ca_file` (PEM) is trusted besides the public authorities; `client_cert` (PEM with its key) is shown to
    servers that ask for one. `allow_private` opens the addresses of one's own network.
    """

    allow_private: bool = False
    proxy: str = "direct"
    ca_file: Path | None = None
    client_cert: Path | None = None

    def __repr__(self) -> str:
        # The proxy may hold a password.
        return f"Route(allow_private={self.allow_private}, ca_file={self.ca_file}, client_cert={self.client_cert})"

    def to(self, scheme: str, host: str, port: int | None) -> Route:
        """The route to one server: what the environment says about it is settled."""
        if self.proxy != "environment":
            return self
        return replace(self, proxy=_from_environment(scheme, host, port) or "direct")

    def without_certificate(self) -> Route:
        return replace(self, client_cert=None)

    @property
    def proxied(self) -> bool:
        return self.proxy != "direct"

    @property
    def proxy_shown(self) -> str:
        """Host and port of the proxy, without its user."""
        parts = urlsplit(self.proxy)
        return f"{parts.hostname}{f':{parts.port}' if parts.port else ''}"


DIRECT = Route()


def _from_environment(scheme: str, host: str, port: int | None) -> str | None:
    """HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, small or capital, as the standard library reads them."""
    from urllib.request import getproxies_environment, proxy_bypass

    named = f"{host}:{port}" if port else host
    if proxy_bypass(named):
        return None
    proxies = getproxies_environment()
    proxy = proxies.get(scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"
