#!/usr/bin/env bash
# nginx 1.22.1 (Debian 12, package nginx-light), two servers in one `upstream`, all else as it comes.
#
# Should: `proxy_read_timeout` bounds the wait for one answer; who waits for it gets 504
#   (https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_read_timeout). The other requests go on.
# Guessed: a client that repeats after that 504 is passed to a server, and served.
# Seen: a timeout counts as a failed attempt, one of them (`max_fails=1`) takes its server away for ten seconds
#   (`fail_timeout=10s`), and so two slow answers, one at each server, take all of them away: every request of every caller
#   is answered 502 with "no live upstreams" in the log, though both servers are idle and answer at once. With one server in
#   the list it does not happen, so it comes with the second node. Who puts nginx before servers whose answers
#   may take long writes `max_fails=0` behind each, and a timeout that is longer than any answer.
set -euo pipefail

folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
if ! command -v nginx >/dev/null; then
  apt-get install -y nginx-light >/dev/null
fi

cat >"$folder/server.py" <<'PYTHON'
import http.server, socketserver, sys, time

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(2 if self.path == "/slow" else 0)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_POST = do_GET
    log_message = lambda *_: None

class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

Server(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
PYTHON

cat >"$folder/nginx.conf" <<CONF
daemon off; master_process off; pid $folder/pid; user root;
events {}
http {
  access_log off;
  client_body_temp_path $folder/body; proxy_temp_path $folder/proxy; fastcgi_temp_path $folder/f;
  uwsgi_temp_path $folder/u; scgi_temp_path $folder/s;
  upstream both { server 127.0.0.1:18471; server 127.0.0.1:18472; }
  server { listen 127.0.0.1:18470; location / { proxy_pass http://both; proxy_read_timeout 1s; } }
}
CONF

python3 "$folder/server.py" 18471 &
python3 "$folder/server.py" 18472 &
nginx -e "$folder/log" -p "$folder" -c "$folder/nginx.conf" &
sleep 2

status() { curl -s -o /dev/null -w '%{http_code}' "$@"; }

echo "before: $(status http://127.0.0.1:18470/)"
status -X POST http://127.0.0.1:18470/slow >"$folder/first" &
first=$!
second=$(status -X POST http://127.0.0.1:18470/slow)
wait "$first"
echo "two slow answers: $(cat "$folder/first"), $second"
after=$(status http://127.0.0.1:18470/)
echo "a quick one after them: $after ($(grep -c 'no live upstreams' "$folder/log" || true) times 'no live upstreams')"
echo "the servers themselves: $(status http://127.0.0.1:18471/), $(status http://127.0.0.1:18472/)"
[ "$after" = 502 ]
