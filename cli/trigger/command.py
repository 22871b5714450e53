"""`trigger` as click sees it, for `iii --help` and shell completion; `main` runs it without click."""

from __future__ import annotations

import click

from cli.trigger.run import run


@click.command(
    "trigger", add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
@click.pass_context
def command(context: click.Context) -> int:
    """Call a function and print its result."""
    return run(context.args)
