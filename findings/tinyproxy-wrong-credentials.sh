#!/usr/bin/env bash
# tinyproxy 1.11.1 (Debian 12: tinyproxy-bin 1.11.1-2.1+deb12u1), a forward proxy, with `BasicAuth me secret`.
# Should: answer a request with wrong proxy credentials as one with none: 407 and `Proxy-Authenticate` (RFC 9110, 15.5.8
#   and 11.7.1; 401 is the origin server's).
# Guessed: 407 in both cases.
# Seen: 407 without credentials, but `401 Unauthorized` with `WWW-Authenticate: Basic realm="Tinyproxy"` where they are
#   wrong. A client behind it that asks an http:// address takes that for the origin's answer, and its own key for bad.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${proxy:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
chmod 777 .
apt-get download -qq tinyproxy-bin=1.11.1-2.1+deb12u1
dpkg -x tinyproxy-bin_*.deb .
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
printf 'Port %s\nListen 127.0.0.1\nBasicAuth me secret\n' "$port" > conf
usr/bin/tinyproxy -d -c conf > log 2>&1 &
proxy=$!
for _ in $(seq 50); do
  curl -s -o /dev/null -x "http://127.0.0.1:$port" http://0.0.0.0:9/ && break
  sleep 0.1
done
none=$(curl -s -o /dev/null -w '%{http_code}' -x "http://127.0.0.1:$port" http://0.0.0.0:9/)
wrong=$(curl -s -o /dev/null -w '%{http_code}' -x "http://me:wrong@127.0.0.1:$port" http://0.0.0.0:9/)
echo "without credentials: $none; with wrong ones: $wrong"
[ "$none" = 407 ] && [ "$wrong" = 401 ]
