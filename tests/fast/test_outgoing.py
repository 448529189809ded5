"""Which proxy an address is asked through, as people name them; and what is wrong is said without the password."""

import os
from pathlib import Path

import certifi
import pytest

from farebox.outgoing import BadWay, way_to

PROXY = "http://proxy:3128"


def through(url: str, **variables: str) -> str | None:
    proxy = way_to(url, variables=variables).proxy
    return None if proxy is None else str(proxy.url)


def test_the_variable_of_the_scheme_is_first_lower_case_before_upper_and_empty_is_not_set() -> None:
    https, http = "https://openrouter.ai/api/v1", "http://example.com:8000/api/v1"
    every = {"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:1", "http_proxy": "http://c:1", "HTTP_PROXY": "d:1"}
    assert through(https) is None
    assert through(https, **every) == "http://a:1"
    assert through(https, **{**every, "https_proxy": " "}) == "http://b:1"
    assert through(http, **every) == "http://c:1"
    assert through(http, **{**every, "http_proxy": ""}) == "http://d:1"
    assert through(http, https_proxy=PROXY) is None
    assert through("wss://api.apify.com/events", **every) == "http://a:1"
    assert through("ws://10.1.2.3/events", **every) == "http://c:1"
    assert through(https, ALL_PROXY=PROXY, HTTP_PROXY="d:1") == PROXY
    assert through(https, all_proxy="http://e:1", ALL_PROXY=PROXY) == "http://e:1"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1:8080", "localhost:1", "LOCALHOST.", "a.localhost", "[::1]:8"])
def test_this_machine_is_never_asked_through_a_proxy(host: str) -> None:
    assert through(f"http://{host}/api/v1", http_proxy=PROXY, all_proxy=PROXY) is None
    assert through("http://[::ffff:127.0.0.1]/", http_proxy=PROXY) is None
    # ... and so nobody cares what is wrong with it.
    assert through(f"http://{host}/api/v1", ALL_PROXY="socks5://proxy") is None


@pytest.mark.parametrize(
    ("no_proxy", "exempt"),
    [
        ("*", True),
        ("example.com", True),
        (".example.com", True),
        ("*.example.com", True),
        ("COM", True),
        ("a, API.example.com ,b", True),
        ("a api.example.com", True),
        ("api.example.com:8443", True),
        ("*:8443", True),
        ("api.example.com:443", False),
        ("ple.com", False),
        ("x.api.example.com", False),
        ("", False),
        (" , ,", False),
        ("10.0.0.0/8", False),
    ],
)
def test_names_that_are_asked_directly(no_proxy: str, exempt: bool) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        found = through("https://api.example.com:8443/v1", https_proxy=PROXY, **{name: no_proxy})
        assert (found is None) == exempt


@pytest.mark.parametrize(
    ("host", "no_proxy", "exempt"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:8000", "10.1.2.3:8000", True),
        ("10.1.2.3:8000", "10.1.2.3:8001", False),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("11.1.2.3", "1.2.3, fd00::/8,x/y", False),
        ("[fd00::1]", "fd00::/8", True),
        ("[fd00::1]:80", "[fd00::1]", True),
        ("[fe00::1]", "fd00::/8", False),
    ],
)
def test_addresses_that_are_asked_directly(host: str, no_proxy: str, exempt: bool) -> None:
    assert (through(f"http://{host}/", http_proxy=PROXY, no_proxy=no_proxy) is None) == exempt


def test_credentials_are_read_and_shown_to_nobody() -> None:
    way = way_to("https://a.test/", variables={"HTTPS_PROXY": "me:hunter%40:2@proxy.test:8080/path"})
    assert way.proxy is not None
    assert (way.proxy.secret_url.user, way.proxy.secret_url.password) == ("me", "hunter@:2")
    assert "hunter" not in repr(way)
    assert way.described == ", through the proxy http://proxy.test:8080 (HTTPS_PROXY)"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("http://me:hunter2@proxy:port", "https_proxy: this is no proxy's URL; write http://HOST:PORT"),
        ("http://me:hunter2@proxy:99999", "https_proxy: this is no proxy's URL"),
        ("http://m%3Ae:hunter2@proxy:1", "https_proxy: this is no proxy's URL"),
        ("http://me:hunter2@", "https_proxy: this"),
        ("socks5h://me:hunter2@proxy:1080", "https_proxy: proxies that speak 'socks5h' cannot be used; write http://"),
    ],
)
def test_a_proxy_that_is_none_is_refused_in_a_sentence(value: str, said: str) -> None:
    with pytest.raises(BadWay) as refused:
        way_to("https://a.test/", variables={"https_proxy": value})
    assert str(refused.value).startswith(said)
    assert "hunter2" not in str(refused.value)


def test_certificates_that_are_none_are_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    for name in ("absent", "empty", "text", "."):
        file = str(tmp_path / name)
        with pytest.raises(BadWay, match="^FAREBOX_CA_FILE: .*" + name):
            way_to("https://a.test/", file, {})
        with pytest.raises(BadWay, match="^SSL_CERT_FILE: .*" + name):
            way_to("https://a.test/", variables={"SSL_CERT_FILE": file})
    assert way_to("https://a.test/", variables={"SSL_CERT_FILE": ""}).tls is None


def test_all_addresses_share_what_they_believe_until_its_file_changes(tmp_path: Path) -> None:
    authorities = Path(certifi.where()).read_text()
    file = tmp_path / "authorities.pem"
    file.write_text(authorities)
    first = way_to("https://a.test/", str(file), {}).tls
    assert first is not None
    assert way_to("https://b.test/", str(file), {}).tls is first
    assert way_to("https://b.test/", variables={"SSL_CERT_FILE": str(file)}).tls is not first
    file.write_text(authorities + authorities)
    os.utime(file, ns=(0, 1))
    assert way_to("https://a.test/", str(file), {}).tls is not first
