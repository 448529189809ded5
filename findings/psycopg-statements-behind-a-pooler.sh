#!/usr/bin/env bash
# psycopg 3.3.9 (PyPI) through PgBouncer 1.18.0 (Debian 12) with `pool_mode = transaction`. psycopg's page on prepared
# statements says that they do not go together with such a pooler, and PgBouncer's page on its features says "no".
#
# Guessed: a statement that was prepared in another server session fails: "prepared statement does not exist".
# Seen: psycopg names the statements of every connection alike, `_pg3_0`, `_pg3_1`, ... Where the session at hand has one of
# that name and as many parameters, prepared by another client, it is that one that runs: its rows come back, without an
# error. Five runs of a statement are enough for psycopg to prepare it. Who builds on psycopg and may be put behind a pooler
# needs `prepare_threshold=None`, or names that no other connection has.
set -euo pipefail

folder=$(mktemp -d)
chmod 755 "$folder"
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
[ -x /usr/sbin/pgbouncer ] && ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq postgresql pgbouncer >/dev/null; }
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'psycopg[binary]==3.3.9'

programs=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
install -d -o postgres "$folder/server"
runuser -u postgres -- "$programs/initdb" -D "$folder/server" -U probe -A trust >/dev/null
runuser -u postgres -- "$programs/postgres" -D "$folder/server" -p 54329 -k '' >/dev/null 2>&1 &
echo '"probe" ""' >"$folder/users"
cat >"$folder/pgbouncer.ini" <<EOF
[databases]
* = host=127.0.0.1 port=54329
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = 64329
unix_socket_dir =
auth_type = trust
auth_file = $folder/users
pool_mode = transaction
EOF
runuser -u postgres -- /usr/sbin/pgbouncer -q "$folder/pgbouncer.ini" 2>/dev/null &

told=$("$folder/venv/bin/python" - <<'PY'
import time

import psycopg

URL = "postgresql://probe@127.0.0.1:64329/postgres"


def connected():
    for _ in range(100):
        try:
            return psycopg.connect(URL)
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise SystemExit("the pooler never answered")


one, other = connected(), connected()
# Each has a session while its transaction lasts, and prepares its statement there.
for _ in range(7):
    one.execute("SELECT 'the one asked ' || %s", ["this"])
    other.execute("SELECT 'somebody else asked ' || %s", ["that"])
one.commit()
other.commit()
# The pooler hands out the session that came back last.
print(one.execute("SELECT 'the one asked ' || %s", ["this"]).fetchone()[0])
PY
)
echo "$told"
[ "$told" = "somebody else asked this" ] || { echo "this has changed"; exit 1; }
