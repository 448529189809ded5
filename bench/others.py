"""Gateways of others, in pinned versions, each installed once into a folder of its own, when asked for (`--peers`)."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.load import Target, load
from bench.processes import free_port
from bench.servers import Missing, Server, Start, Upstream, started

FOLDER = Path(".bench")
LITELLM = "litellm[proxy]==1.108.7"
"""The newest whose extra `proxy` can be installed from PyPI: since then it names packages that are not there."""

PORTKEY = "@portkey-ai/gateway"
PORTKEY_PACKAGE = {
    "dependencies": {PORTKEY: "1.15.2"},
    # With 1.14.2 and newer it answers every stream with a 500 (Portkey-AI/gateway#1389).
    "overrides": {"@hono/node-server": "1.13.8"},
}

WARM_UP_SECONDS = 5
"""LiteLLM loads parts of itself at its first hundred requests."""


def _installed(name: str, what: str, *commands: list[str], file: str = "requirements.txt") -> Path:
    """A folder of a peer's own, outside Farebox's environment, where the commands install, once, what a file says."""
    folder = (FOLDER / name).absolute()
    done = folder / ".done"
    if done.is_file() and done.read_text() == what:
        return folder
    print(f"installing {name} into {FOLDER / name} (minutes) ...", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / file).write_text(what)
    for command in commands:
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise Missing(f"could not be installed: {said[-1]}") from error
    done.write_text(what)
    return folder


@contextmanager
def _peer(name: str, command: list[str], folder: Path, target: Target, **env: str) -> Iterator[Server]:
    """A gateway of others that serves both kinds of answer; Missing where it does not."""
    try:
        with ExitStack() as stack:
            server = stack.enter_context(started(name, command, folder, target, **env))
            for kind in ("whole", "streamed"):
                if load(target, kind, 8, WARM_UP_SECONDS).failures:
                    raise Missing(f"does not serve: a {kind} answer is none")
            running = stack.pop_all()
    except (RuntimeError, ConnectionError) as error:
        raise Missing(f"does not run: {error}") from error
    with running:
        yield server


LITELLM_CONFIG = """
model_list:
  - model_name: sim/echo
    litellm_params: {{model: openai/sim/echo, api_base: "{url}", api_key: none}}
general_settings: {{master_key: sk-bench}}
litellm_settings: {{telemetry: false}}
"""


@contextmanager
def litellm(folder: Path, upstream: Upstream) -> Iterator[Server]:
    """LiteLLM's proxy, one worker, without a database."""
    pip = "bin/python -m pip install -q --disable-pip-version-check -r requirements.txt".split()
    own = _installed("litellm", LITELLM, [sys.executable, "-m", "venv", "."], pip)
    target = Target(free_port(), ["sk-bench"], "/v1/chat/completions")
    config = folder / "litellm.yaml"
    config.write_text(LITELLM_CONFIG.format(url=upstream.url))
    command = [str(own / "bin/litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(target.port)]
    settings = {
        "PYTHONPATH": "",
        # It tries an import at every request that fails here: without byte code it compiles that anew, 10 ms each time.
        "PYTHONDONTWRITEBYTECODE": "",
        # No list of prices from the internet.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
    }
    with _peer(f"LiteLLM {LITELLM.rpartition('=')[2]}", command, folder, target, **settings) as server:
        yield server


@contextmanager
def portkey(folder: Path, upstream: Upstream) -> Iterator[Server]:
    """Portkey's gateway, which is told in each request where to go."""
    npm = ["npm", "install", "--no-audit", "--no-fund"]
    own = _installed("portkey", json.dumps(PORTKEY_PACKAGE), npm, file="package.json")
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": upstream.url}
    target = Target(free_port(), ["none"], "/v1/chat/completions", headers)
    program = own / "node_modules/@portkey-ai/gateway/build/start-server.js"
    command = ["node", str(program), "--headless", f"--port={target.port}"]
    name = f"Portkey {PORTKEY_PACKAGE['dependencies'][PORTKEY]}"
    with _peer(name, command, folder, target, NODE_ENV="production") as server:
        yield server


OTHERS: tuple[Start, ...] = (litellm, portkey)
