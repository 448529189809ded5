#!/usr/bin/env bash
# psycopg 3.3.9 (PyPI), the PostgreSQL driver, in pipeline mode, with the server of Debian's package `postgresql` (any).
# Should: go on after a statement of a pipeline has failed: "the following operations will be aborted", then the
#   connection can be used again (psycopg.org/psycopg3/docs/advanced/pipeline.html).
# Guessed: a statement that the server left out, because one before it had failed, counts as not carried out; the next
#   time it is prepared, or sent as it is.
# Seen: where it was the time to prepare it (the sixth), the driver takes it for prepared, and from then on each of its
#   executions on this connection fails: `prepared statement "_pg3_0" does not exist`. A ROLLBACK does not always help.
#   Who uses pipelines and prepared statements clears them himself after a failure.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null && wait "$server" || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q 'psycopg[binary]==3.3.9'
programs=$(dirname "$(readlink -f "$(command -v initdb || ls /usr/lib/postgresql/*/bin/initdb | tail -1)")")
as=()
if [ "$(id -u)" = 0 ]; then
  chown postgres .
  as=(setpriv --reuid postgres --regid postgres --clear-groups)
fi
"${as[@]}" "$programs/initdb" -D data -U me -A trust > /dev/null
"${as[@]}" "$programs/postgres" -D data -k "$folder" -c listen_addresses= > log 2>&1 &
server=$!
cat > shows.py <<'PYTHON'
import sys
import time

import psycopg

for _ in range(50):
    try:
        db = psycopg.connect(f"host={sys.argv[1]} user=me dbname=postgres", autocommit=True)
        break
    except psycopg.OperationalError:
        time.sleep(0.2)
for _ in range(5):
    db.execute("SELECT %s::int", (1,))
try:
    with db.pipeline():
        db.execute("SELECT 1 / 0")
        db.execute("SELECT %s::int", (1,))
except psycopg.errors.DivisionByZero as error:
    print("in the pipeline:", error)
for _ in range(2):
    try:
        print("after it:", db.execute("SELECT %s::int", (1,)).fetchone())
        sys.exit(1)
    except psycopg.errors.InvalidSqlStatementName as error:
        print("after it:", error)
PYTHON
venv/bin/python shows.py "$folder"
