"""`iii openapi`: the OpenAPI document of the running project, from its http worker."""

from __future__ import annotations

import click

from cli.client.connection import connect
from cli.commands.options import engine_option
from cli.text.output import shown_json, write


@click.command("openapi")
@engine_option
def command(engine: str | None) -> None:
    """Print the OpenAPI 3.1 document of all http routes that are live."""
    with connect(engine) as connection:
        document = connection.call("http::openapi", None)
    write(shown_json(document))
