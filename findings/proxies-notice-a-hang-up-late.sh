#!/usr/bin/env bash
# haproxy 2.6.12-1+deb12u3 and varnish 7.1.1-2+deb12u1 (Debian 12), each with its shortest configuration: a caller hangs up on
# an answer that comes in pieces and is silent just then. RFC 9112, 9.5: "Implementations ought to constantly monitor open
# connections for a received closure signal". That neither does so is known; so servers of event streams send comments.
#
# Guessed: the first piece that is sent after the hang-up makes the proxy close the connection behind it.
# Seen: HAProxy closes it at the second piece, Varnish at the third, a second apart or fifteen. The first only makes the
# caller's side refuse it. With one comment every 15 s a server so learns of a hang-up after up to 45 s, and goes on paying for
# an answer that nobody reads: it should send some in a row.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
apt-get install -y -qq haproxy=2.6.12-1+deb12u3 varnish=7.1.1-2+deb12u1 >"$folder/apt.log"

told=$(python3 - "$folder" <<'PY'
import socket
import subprocess
import sys
import time

FOLDER = sys.argv[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def piece(text):
    return b"%x\r\n%s\r\n" % (len(text), text)


def connected(port):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        except OSError:
            time.sleep(0.1)
    raise SystemExit("it does not listen")


def pieces_until_closed(port, listening):
    """How many pieces the server sends after the hang-up before its own connection is closed."""
    with connected(port) as caller:
        caller.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        behind, _ = listening.accept()
        behind.recv(65536)
        behind.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        behind.sendall(piece(b"data: first\n\n"))
        got = b""
        while b"first" not in got:
            got += caller.recv(65536)
    behind.settimeout(2)
    for sent in range(6):
        try:
            if not behind.recv(1):
                return sent
        except TimeoutError:
            behind.sendall(piece(b": keep-alive\n\n"))
        except OSError:
            return sent
    return None


def run(name, command, own, listening):
    with open(f"{FOLDER}/{name}.log", "wb") as log:
        proxy = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        print(name, pieces_until_closed(own, listening))
    finally:
        proxy.terminate()
        proxy.wait()


with socket.create_server(("127.0.0.1", 0)) as listening:
    behind, own, other = listening.getsockname()[1], free_port(), free_port()
    with open(f"{FOLDER}/haproxy.cfg", "w") as file:
        file.write(
            "defaults\n mode http\n timeout connect 5s\n timeout client 50s\n timeout server 50s\n"
            f"listen x\n bind 127.0.0.1:{own}\n server s 127.0.0.1:{behind}\n"
        )
    run("haproxy", ["haproxy", "-db", "-f", f"{FOLDER}/haproxy.cfg"], own, listening)
    varnish = ["varnishd", "-F", "-j", "none", "-n", f"{FOLDER}/varnish", "-s", "malloc,16m"]
    run("varnish", [*varnish, "-a", f"127.0.0.1:{other}", "-b", f"127.0.0.1:{behind}"], other, listening)
PY
)
echo "$told"
[ "$told" = "haproxy 2
varnish 3" ] || { echo "this has changed"; exit 1; }
