"""The way out: through which proxy an address is asked, and whose certificates are believed there.

Proxies are named as for curl, in lower or upper case, the former first; what is empty counts as not set: `https_proxy`
for addresses with TLS, `http_proxy` for those without, `all_proxy` for either where its own is not set. `no_proxy`
lists what is asked directly, separated by commas or spaces: names, which mean what is below them, too; addresses and
networks (10.0.0.0/8); each with a port, if only that one is meant; `*` for everything. Unlike curl, and like Go, an
address of this machine (`localhost`, 127.0.0.0/8, ::1) is always asked directly.
"""

import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yarl import URL

CERTIFICATES_VARIABLE = "SSL_CERT_FILE"
"""OpenSSL's own setting: a file of authorities in the place of the system's."""

CA_SETTING = "FAREBOX_CA_FILE"

_HOW = "write http://HOST:PORT, with USER:PASSWORD@ before the host where it wants them"


class BadWay(Exception):  # noqa: N818 - the word of the house
    """A variable that names a proxy or certificates is wrong. The message names it, and quotes no password."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A forward proxy: its URL to be shown, the same with its credentials, and the variable that names it."""

    url: "URL"
    secret_url: "URL" = field(repr=False)
    variable: str


@dataclass(frozen=True, slots=True)
class WayOut:
    """How one address is reached: through a proxy or directly (None), believing the certificates of `tls` (None: of the
    system's authorities)."""

    proxy: Proxy | None = None
    tls: ssl.SSLContext | None = None

    @property
    def described(self) -> str:
        """In words, after an address; without credentials."""
        return "" if self.proxy is None else f", through the proxy {self.proxy.url} ({self.proxy.variable})"


DIRECTLY = WayOut()


def way_to(url: str, ca_file: str | None = None, variables: Mapping[str, str] = os.environ) -> WayOut:
    """The way to an address, whose `ca_file` has authorities to believe beside the others. Raises BadWay."""
    return WayOut(_proxy_for(url, variables), _tls(ca_file, variables))


# Proxies


def _proxy_for(address: str, variables: Mapping[str, str]) -> Proxy | None:
    if not _value(variables, "https_proxy", "http_proxy", "all_proxy")[1]:
        return None
    # Only here: who has no proxy need not carry it.
    from yarl import URL

    url = URL(address)
    host = (url.host or "").rstrip(".").lower()
    if _is_this_machine(host):
        return None
    scheme = "https" if url.scheme in ("https", "wss") else "http"
    name, value = _value(variables, f"{scheme}_proxy", "all_proxy")
    if not value or _is_exempt(host, url.port, _value(variables, "no_proxy")[1]):
        return None
    return _read_proxy(name, value)


def _value(variables: Mapping[str, str], *names: str) -> tuple[str, str]:
    """The first of the variables that is set, and its value."""
    spelt = [each for name in names for each in (name, name.upper())]
    return next(((name, value) for name in spelt if (value := variables.get(name, "").strip())), ("", ""))


def _read_proxy(name: str, value: str) -> Proxy:
    """Raises BadWay."""
    from yarl import URL

    try:
        url = URL(value if "://" in value else f"http://{value}")
        host, port = url.host, url.port
        user, password = url.user or "", url.password or ""
        f"{user}:{password}".encode("latin-1")
    except ValueError:
        raise BadWay(f"{name}: this is no proxy's URL; {_HOW}") from None
    if ":" in user:  # which nobody could tell from the one before the password
        raise BadWay(f"{name}: this is no proxy's URL; {_HOW}")
    if url.scheme not in ("http", "https"):
        raise BadWay(
            f"{name}: proxies that speak {url.scheme!r} cannot be used; {_HOW}, or exempt the address in NO_PROXY"
        )
    if not host or port is None:
        raise BadWay(f"{name}: this names no host; {_HOW}")
    shown = URL.build(scheme=url.scheme, host=host, port=port)
    secret = shown.with_user(user).with_password(password) if user or password else shown
    return Proxy(shown, secret, name)


def _is_this_machine(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or host.endswith(".localhost") or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


_WITH_PORT = re.compile(r"(?P<name>[^:\[\]]+|\[[^\]]*\])(?::(?P<port>\d+))?")


def _is_exempt(host: str, port: int | None, no_proxy: str) -> bool:
    address = _address(host)
    for entry in re.split(r"[\s,]+", no_proxy.lower()):
        split = _WITH_PORT.fullmatch(entry)
        name = (split["name"] if split else entry).strip("[]")
        if split and split["port"] and int(split["port"]) != port:
            continue
        if name == "*":
            return True
        if address is not None:
            try:
                network = ipaddress.ip_network(name, strict=False)
            except ValueError:
                continue
            if address.version == network.version and address in network:
                return True
        elif (name := name.removeprefix("*").strip(".")) and (host == name or host.endswith("." + name)):
            return True
    return False


def why_not_connected(reason: OSError) -> str:
    """Why there is no connection, in words."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {reason.verify_message}"
    if reason.errno and reason.errno > 0 and not isinstance(reason, ssl.SSLError):
        # The system's own words. Those of asyncio have the address, which may be none of the caller's business.
        return os.strerror(reason.errno)
    return reason.strerror or "no connection"


# Certificates


def _tls(ca_file: str | None, variables: Mapping[str, str]) -> ssl.SSLContext | None:
    """Raises BadWay."""
    named = ((CERTIFICATES_VARIABLE, variables.get(CERTIFICATES_VARIABLE)), (CA_SETTING, ca_file))
    files = tuple((name, file, _changed_ns(file)) for name, file in named if file)
    return believing(files) if files else None


def _changed_ns(file: str) -> int:
    try:
        return Path(file).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache
def believing(files: tuple[tuple[str, str, int], ...] = ()) -> ssl.SSLContext:
    """Believes the system's authorities and those in the files: of each what names it, its path, and when it was
    changed. Made once: to read the system's takes a twentieth of a second and a megabyte.

    Raises:
        BadWay: a file cannot be read, or has no certificates. (Of its own variable's file OpenSSL says nothing.)
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    for name, file, _ in files:
        try:
            context.load_verify_locations(file)
        except ssl.SSLError:
            raise BadWay(f"{name}: there are no certificates in {file!r}; a file of PEM texts is wanted") from None
        except OSError as error:
            raise BadWay(f"{name}: {file!r} cannot be read: {error.strerror}") from error
    return context
