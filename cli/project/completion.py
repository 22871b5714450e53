"""`iii completion SHELL`: the script that teaches a shell the commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from cli.text.output import write


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script, e.g. for `source <(iii completion bash)`."""
    from cli.commands.registry import root  # `registry` imports this module

    script = get_completion_class(shell)
    if script is not None:
        write(script(root, {}, "iii", "_III_COMPLETE").source())
