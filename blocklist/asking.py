"""What to ask for one feed: its URLs with their key, by which way, within which limits."""

from __future__ import annotations

import base64
from urllib.parse import quote, urlsplit, urlunsplit

from blocklist import __version__, credentials
from blocklist.catalog import PLACEHOLDER, Feed
from blocklist.config import Config
from blocklist.errors import FeedError
from blocklist.ingest.fetch import Limits, Request
from blocklist.ingest.route import Route
from blocklist.ingest.unpack import Packing
from blocklist.quantities import parse_duration, parse_size


def request_for(feed: Feed, config: Config) -> Request:
    """The request for all of `feed`, without what is known of it. Raises FeedError when its key can't be used."""
    urls, headers, secrets = feed.urls, {}, []
    if feed.auth is not None:
        value = credentials.secret(feed.auth.name, config.base)
        secrets = [value, value.partition(":")[2]]
        if feed.auth.header is not None:
            headers[feed.auth.header] = value
        elif feed.auth.bearer:
            headers["Authorization"] = f"Bearer {value}"
        elif feed.auth.basic:
            if ":" not in value:
                raise FeedError(f"the secret '{feed.auth.name}' is not user:password, as basic = true wants it")
            packed = base64.b64encode(value.encode()).decode("ascii")
            secrets.append(packed)
            headers["Authorization"] = f"Basic {packed}"
        else:
            urls = tuple(_with_key(url, feed.auth.query, quote(value, safe="")) for url in urls)
    return Request(
        feed=feed.id,
        urls=urls,
        mirrors=tuple(feed.mirrors),
        headers=headers,
        secrets=tuple(s for s in secrets if s),
        max_size=parse_size(feed.max_size),
        packing=Packing(feed.packed, feed.member),
        allow_private=feed.allow_private,
        route=route_for(feed, config),
        base=config.base,
        user_agent=user_agent(config),
        format=feed.input.name,
        tsig=feed.tsig,
    )


def route_for(feed: Feed, config: Config) -> Route:
    """Proxy and certificates for `feed`. Raises FeedError when a secret of them can't be used."""
    settings = config.fetch
    proxy = feed.proxy or settings.proxy
    if settings.proxy_auth and proxy == settings.proxy and "://" in proxy:
        user, _, password = credentials.secret(settings.proxy_auth, config.base).partition(":")
        scheme, rest = proxy.split("://", 1)
        proxy = f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"
    ca_file = feed.ca_file or settings.ca_file
    client_cert = config.base / feed.client_cert if feed.client_cert else None
    if client_cert is not None:
        try:
            credentials.refuse_open(client_cert, client_cert.stat())
        except OSError as error:
            raise FeedError(f"{client_cert}: {(error.strerror or '').lower()}", hint="see client_cert") from None
    return Route(
        allow_private=feed.allow_private,
        proxy=proxy,
        ca_file=config.base / ca_file if ca_file else None,
        client_cert=client_cert,
    )


def _with_key(url: str, query: str | None, value: str) -> str:
    if query is None:
        return url.replace(PLACEHOLDER, value)
    parts = urlsplit(url)
    field = f"{quote(query, safe='')}={value}"
    return urlunsplit(parts._replace(query=f"{parts.query}&{field}" if parts.query else field))


def user_agent(config: Config) -> str:
    """Who we are, and whom a publisher may write to before blocking us."""
    contact = config.fetch.contact
    return f"blocklist/{__version__}" + (
        f" ({contact})" if contact.isascii() and contact.isprintable() and contact else ""
    )


def limits_of(config: Config) -> Limits:
    settings = config.fetch
    return Limits(
        connect=parse_duration(settings.connect),
        idle=parse_duration(settings.idle),
        total=parse_duration(settings.total),
        per_host=settings.per_host,
        at_once=settings.at_once,
    )


__all__ = ["limits_of", "request_for", "route_for", "user_agent"]
