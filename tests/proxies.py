"""Debian's reverse proxies in front of a gateway, each with a short configuration: it passes offers of other protocols
on, and shares its connections to the gateway among all callers."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
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

START_SECONDS = 20


@contextmanager
def proxy(program: str, folder: Path, port: int) -> Iterator[int]:
    """The proxy in front of a port, for as long as the block runs; gives its own port."""
    if not shutil.which(program):
        debian_install(PROGRAMS[program])
    if not shutil.which(program):
        missing(f"{program} is not installed, so nothing is tried behind it")
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = int(free.getsockname()[1])
    folder.mkdir()
    (folder / "configuration").write_text(_CONFIGURATIONS[program].format(folder=folder, own=own, port=port))
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


_CONFIGURATIONS = {
    "nginx": """
daemon off; master_process off; pid {folder}/pid; user root;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
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
    "caddy": """
{{
  admin off
  auto_https off
  storage file_system {folder}/storage
}}
http://127.0.0.1:{own}, http://x:{own} {{
  reverse_proxy 127.0.0.1:{port}
}}
""",
    "apache2": """
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
Listen 127.0.0.1:{own}
ServerName x
PidFile {folder}/pid
ErrorLog {folder}/errors
ProxyPass / http://127.0.0.1:{port}/ upgrade=ANY
""",
    "lighttpd": """
server.modules = ("mod_proxy")
server.document-root = "{folder}"
server.bind = "127.0.0.1"
server.port = {own}
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
