"""Webhooks: how one is signed, which addresses it may be sent to, and how a receiver's URL is shown.

Signed as the Standard Webhooks specification says, so that its libraries verify it: an HMAC-SHA256 over the id, the
moment in seconds and the body, with a secret of its own for each receiver.
"""

import base64
import hashlib
import hmac
import ipaddress
from urllib.parse import urlsplit

URL_LENGTH_MAX = 2_000

SECRET_PREFIX = "whsec_"  # noqa: S105 - how secrets begin, and none itself
SECRET_BYTES = 32
"""The specification asks for 24 to 64."""


def secret_of(random: bytes) -> str:
    assert len(random) == SECRET_BYTES
    return SECRET_PREFIX + base64.b64encode(random).decode()


def headers_of(name: str, secret: str, at_seconds: int, body: bytes) -> dict[str, str]:
    """What goes with a body: the same id each time that it is sent, and the moment of this time."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = hmac.new(key, b"%b.%d.%b" % (name.encode(), at_seconds, body), hashlib.sha256).digest()
    return {
        "webhook-id": name,
        "webhook-timestamp": str(at_seconds),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


def shown(url: str) -> str:
    """A receiver's URL as lists and logs may have it: who knows the rest of it can send there, too."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/..."


def check_url(url: str, *, may_be_private: bool) -> None:
    """Raises ValueError, in words for who wrote it. Names are looked up when something is sent, not here."""
    if len(url) > URL_LENGTH_MAX or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError(f"a URL of at most {URL_LENGTH_MAX} ASCII characters, percent-encoded")
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("this is no URL; write one like https://example.com/hooks/farebox") from error
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError("write a URL like https://example.com/hooks/farebox")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("a URL without a user, a password or a fragment")
    if may_be_private:
        return
    if parts.scheme != "https":
        raise ValueError("https alone, but within your own network, where FAREBOX_ALERTS_PRIVATE allows that")
    if is_address(host) and not is_public(host):
        raise ValueError(NOT_PUBLIC)


NOT_PUBLIC = "an address within the gateway's own network, which only FAREBOX_ALERTS_PRIVATE allows"


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NEVER = (
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's own, on every machine there: a public number
    ipaddress.ip_network("192.0.0.0/24"),  # of protocols; Oracle's cloud has its metadata there
    ipaddress.ip_network("192.88.99.0/24"),  # relays of 6to4
    ipaddress.ip_network("64:ff9b:1::/48"),  # translation within a network (RFC 8215)
    ipaddress.ip_network("100::/64"),
    ipaddress.ip_network("2001::/23"),  # of protocols, Teredo among them
    ipaddress.ip_network("fec0::/10"),  # what private networks had before fc00::/7
    ipaddress.ip_network("5f00::/16"),
)
"""Beside what Python's library knows, whose list changes from version to version."""

_IN_IPV6 = (
    (ipaddress.ip_network("::/96"), 0),  # "compatible", deprecated
    (ipaddress.ip_network("::ffff:0:0/96"), 0),  # mapped
    (ipaddress.ip_network("::ffff:0:0:0/96"), 0),  # translated (RFC 2765)
    (ipaddress.ip_network("64:ff9b::/96"), 0),  # NAT64 (RFC 6052)
    (ipaddress.ip_network("2002::/16"), 80),  # 6to4 (RFC 3056)
)
"""Networks of IPv6 addresses that lead to an IPv4 address, and how many bits stand behind it."""


def is_public(text: str) -> bool:
    """Whether an address lies in the public internet: not on this machine, in no private network, no link-local one, no
    cloud's metadata service; an IPv6 address that leads to an IPv4 one, where that is so of both."""
    if "%" in text:
        return False
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        for network, behind in _IN_IPV6:
            if address in network:
                return _is_global(ipaddress.IPv4Address(int(address) >> behind & 0xFFFFFFFF))
    return _is_global(address)


def _is_global(address: _Address) -> bool:
    if address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    return address.is_global and not any(address in each for each in _NEVER)
