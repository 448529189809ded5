"""`farebox serve` and `farebox simulate`."""

from typing import Annotated

import typer

from farebox.cli import opening
from farebox.cli.session import DatabaseUrl, clear_errors
from farebox.serving import exit_cleanly_on_signals
from farebox.simulator import As


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", show_default="8080")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that serve.", show_default="1")] = None,
    database_url: DatabaseUrl = None,
    upstream: Annotated[
        str | None,
        typer.Option(
            help="Base URL of an OpenRouter-compatible API, with its /api/v1.",
            show_default="OpenRouter or the simulator",
        ),
    ] = None,
) -> None:
    """Serve the gateway. With no settings: on a simulated upstream, with a demo account."""
    with clear_errors():
        opening.serve(host=host, port=port, workers=workers, database_url=database_url, upstream_url=upstream)


def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free one.", min=0, max=65535)] = 8081,
    as_: Annotated[
        As, typer.Option("--as", help="Whom it stands in for: at its root, where that is not OpenRouter.")
    ] = ("openrouter"),
) -> None:
    """Serve the simulated upstream alone: OpenRouter at /api/v1, OpenAI at /openai/v1, Anthropic at /anthropic/v1."""
    from farebox.simulator import server as simulator
    from farebox.simulator.app import BASE_PATH

    below = {"openrouter": BASE_PATH, "openai": "/v1", "anthropic": ""}[as_]
    with clear_errors(), opening.listening(host, port) as bound:
        typer.echo(f"Simulated upstream on http://{opening.url_host(host)}:{bound.getsockname()[1]}{below}")
        exit_cleanly_on_signals()
        simulator.serve(bound, as_)
