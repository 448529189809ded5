"""Debian's reverse proxies in front of a gateway: with the files of `deploy/proxies`, or each with a configuration that
passes offers of other protocols on, and shares its connections to the gateway among all callers."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.conftest import debian_install, missing

PROGRAMS = {
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "caddy": "caddy",
    "apache2": "apache2",
    "lighttpd": "lighttpd",
    "varnishd": "varnish",
}
"""Each with its Debian package."""

FILES = {
    "nginx": "nginx.conf",
    "haproxy": "haproxy.cfg",
    "caddy": "Caddyfile",
    "apache2": "apache.conf",
    "lighttpd": "lighttpd.conf",
    "varnishd": "varnish.vcl",
}
"""Each with its file in `deploy/proxies`."""

DEPLOY = Path(__file__).parents[1] / "deploy" / "proxies"

START_SECONDS = 20


def proxy(program: str, folder: Path, port: int) -> AbstractContextManager[int]:
    """The proxy in front of a port, for as long as the block runs; gives its own port."""
    return _running(program, folder, port, _CONFIGURATIONS[program])


def deployed(program: str, folder: Path, port: int, *changes: tuple[str, str]) -> AbstractContextManager[int]:
    """The same with its file of `deploy/proxies`. `changes` are made in the file: a pattern, and what to put there."""
    text = (DEPLOY / FILES[program]).read_text()
    for pattern, instead in changes:
        text, count = re.subn(pattern, instead, text)
        assert count, (program, pattern)
    text = text.replace("{", "{{").replace("}", "}}")
    for address, instead in _ADDRESSES[program]:
        assert address in text, (program, address)
        text = text.replace(address, instead)
    return _running(program, folder, port, _FRAMES[program].replace("FILE", text))


@contextmanager
def _running(program: str, folder: Path, port: int, configuration: str) -> Iterator[int]:
    if not shutil.which(program):
        debian_install(PROGRAMS[program])
    if not shutil.which(program):
        missing(f"{program} is not installed, so nothing is tried behind it")
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = int(free.getsockname()[1])
    folder.mkdir()
    (folder / "configuration").write_text(configuration.format(folder=folder, own=own, port=port))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(_command(program, folder, own), cwd=folder, stdout=log, stderr=log)
    try:
        _wait(process, own, folder / "log")
        yield own
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        else:
            return


def _command(program: str, folder: Path, own: int) -> list[str]:
    file = str(folder / "configuration")
    match program:
        case "nginx":
            return ["nginx", "-e", "stderr", "-p", str(folder), "-c", file]
        case "haproxy":
            return ["haproxy", "-db", "-f", file]
        case "caddy":
            return ["caddy", "run", "--adapter", "caddyfile", "--config", file]
        case "apache2":
            return ["apache2", "-X", "-d", str(folder), "-f", file]
        case "lighttpd":
            return ["lighttpd", "-D", "-f", file]
        case _:
            listen = f"127.0.0.1:{own}"
            return [
                "varnishd",
                "-F",
                "-j",
                "none",
                "-n",
                str(folder / "run"),
                "-a",
                listen,
                "-f",
                file,
                "-s",
                "malloc,16m",
            ]


_ADDRESSES = {
    "nginx": [("127.0.0.1:8080", "127.0.0.1:{port}"), ("listen 80;", "listen 127.0.0.1:{own};")],
    "haproxy": [("127.0.0.1:8080", "127.0.0.1:{port}"), ("bind :80 ", "bind 127.0.0.1:{own} ")],
    "caddy": [("127.0.0.1:8080", "127.0.0.1:{port}"), ("\n:80 ", "\nhttp://:{own} ")],
    "apache2": [("127.0.0.1:8080", "127.0.0.1:{port}"), ("<VirtualHost *:80>", "<VirtualHost 127.0.0.1:{own}>")],
    "lighttpd": [('"port" => 8080', '"port" => {port}')],
    "varnishd": [('.port = "8080"', '.port = "{port}"')],
}
"""Where each file says Farebox's address and the proxy's own, and what tests say there."""

NGINX = """
daemon off; master_process off; pid {folder}/pid; user root;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
"""

_CADDY = """
{{
  admin off
  auto_https off
  storage file_system {folder}/storage
}}
"""

_APACHE = """
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
Listen 127.0.0.1:{own}
ServerName x
PidFile {folder}/pid
ErrorLog {folder}/errors
"""

_LIGHTTPD = """
server.document-root = "{folder}"
server.bind = "127.0.0.1"
server.port = {own}
"""

_FRAMES = {
    "nginx": NGINX + "FILE\n}}\n",
    "haproxy": "FILE",
    "caddy": _CADDY + "FILE",
    "apache2": _APACHE + "FILE",
    "lighttpd": _LIGHTTPD + "server.modules = ()\nFILE",
    "varnishd": "FILE",
}
"""What Debian's own configuration has around the files, without what they do not need."""

_CONFIGURATIONS = {
    "nginx": NGINX
    + """
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream farebox {{ server 127.0.0.1:{port}; keepalive 1; }}
  server {{
    listen 127.0.0.1:{own};
    location / {{
      proxy_pass http://farebox; proxy_http_version 1.1; proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
    }}
  }}
}}
""",
    "haproxy": """
defaults
  mode http
  http-reuse always
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend all
  bind 127.0.0.1:{own}
  default_backend farebox
backend farebox
  server one 127.0.0.1:{port}
""",
    "caddy": _CADDY
    + """
http://127.0.0.1:{own}, http://x:{own} {{
  reverse_proxy 127.0.0.1:{port}
}}
""",
    "apache2": _APACHE
    + """
ProxyPass / http://127.0.0.1:{port}/ upgrade=ANY
""",
    "lighttpd": _LIGHTTPD
    + """
server.modules = ("mod_proxy")
proxy.server = ("" => (("host" => "127.0.0.1", "port" => {port})))
proxy.header = ("upgrade" => "enable")
""",
    "varnishd": """
vcl 4.1;
backend farebox {{ .host = "127.0.0.1"; .port = "{port}"; }}
sub vcl_recv {{ if (req.http.upgrade ~ "(?i)websocket") {{ return (pipe); }} return (pass); }}
sub vcl_pipe {{ set bereq.http.connection = req.http.connection; set bereq.http.upgrade = req.http.upgrade; }}
""",
}
