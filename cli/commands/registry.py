"""The click side of the command line: one row a command, its module imported when it is used.

A new command is a click command in the module of its subject, and a row.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

import click

from cli.client.errors import UsageError
from iii.suggestions import nearest_names

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# command -> (module, attribute, one line for the help of its group)
Table = dict[str, tuple[str, str, str]]
COMMANDS: Table = {
    "dev": ("cli.commands.engine", "dev", "Start the project's workers and reload what changes."),
    "start": ("cli.commands.engine", "start", "Start the project's workers without watching files."),
    "stop": ("cli.commands.engine", "stop", "Stop the project's engine from elsewhere."),
    "trigger": ("cli.commands.registry", "trigger", "Call a function (aliases: call, t)."),
    "ps": ("cli.observe.workers", "ps", "Show the workers and how they are."),
    "functions": ("cli.observe.registrations", "functions", "List the functions that can be called."),
    "triggers": ("cli.observe.registrations", "triggers", "List what calls which function."),
    "cluster": ("cli.observe.engines", "cluster", "Show the engines of the cluster."),
    "state": ("cli.commands.stores", "state", "Read, write and watch values of the state worker."),
    "stream": ("cli.commands.stores", "stream", "Follow the events of a stream."),
    "config": ("cli.commands.configuration", "command", "Read and change settings while workers run."),
    "logs": ("cli.observe.logs", "command", "Show what the workers have written."),
    "trace": ("cli.observe.traces", "trace", "Show one trace as a tree with its times."),
    "traces": ("cli.observe.traces", "traces", "List what was called lately, the slow and the failed."),
    "metrics": ("cli.observe.metrics", "command", "Show counts, durations and the metrics of SDKs."),
    "replay": ("cli.observe.traces", "replay", "Make a call of a trace once more."),
    "top": ("cli.observe.workers", "top", "Watch the workers and what they use."),
    "types": ("cli.stubs.command", "types", "Write typed stubs of the functions, or check them."),
    "openapi": ("cli.observe.registrations", "openapi", "Print the OpenAPI document of the http routes."),
    "worker": ("cli.commands.registry", "worker", "Restart, stop or start a worker, and all about workers."),
    "queue": ("cli.commands.queue", "command", "Look into queues; redrive, pause, purge."),
    "flow": ("cli.commands.flow", "command", "Look into runs of flows; signal, cancel, retry."),
    "cron": ("cli.commands.cron", "command", "Show when a cron expression fires."),
    "backup": ("cli.project.backup", "backup", "Copy the project's stores into one file, live too."),
    "restore": ("cli.project.backup", "restore", "Put the stores of a backup back."),
    "check": ("cli.project.declarations", "check", "Validate iii.toml without starting anything."),
    "env": ("cli.project.declarations", "env", "Show a worker's environment and where it comes from."),
    "doctor": ("cli.project.doctor", "command", "Check the machine and the project."),
    "explain": ("cli.project.explain", "command", "Say what an error code means and what to do."),
    "init": ("cli.project.init", "command", "Make a new project."),
    "add": ("cli.project.declarations", "add", "Add a standard worker to iii.toml."),
    "import": ("cli.project.imports", "command", "Write an iii.toml from a config.yaml or worker-compose.yaml."),
    "project": ("cli.commands.registry", "project", "Make a project: `iii project init` is `iii init`."),
    "console": ("cli.commands.console", "command", "Open the page that shows what the project does."),
    "mcp": ("cli.commands.mcp", "command", "Serve the project to an agent, on stdin and stdout."),
    "token": ("cli.commands.engine", "token", "Print the token for connections from elsewhere."),
    "completion": ("cli.commands.completion", "command", "Print the completion script of a shell."),
}

# The public command line's words, beside our own.
WORKER_COMMANDS: Table = {
    "list": ("cli.observe.workers", "ps", "Show the workers and how they are: `iii ps`."),
    "status": ("cli.observe.workers", "status", "Show one worker."),
    "logs": ("cli.observe.logs", "command", "Show what the workers have written: `iii logs`."),
    "restart": ("cli.observe.workers", "restart", "Start a new process of the worker."),
    "stop": ("cli.observe.workers", "stop", "Stop the worker until it is started again."),
    "start": ("cli.observe.workers", "start", "Start a worker that was stopped or has failed."),
    "add": ("cli.project.declarations", "add", "Add a standard worker to iii.toml: `iii add`."),
    "remove": ("cli.project.declarations", "remove", "Remove a worker from iii.toml."),
}
PROJECT_COMMANDS: Table = {"init": COMMANDS["init"]}

# What `main` takes for `iii trigger`; shells ask here.
ALIASES = {"call": "trigger", "t": "trigger"}

_ANY_WORDS = {"ignore_unknown_options": True, "allow_extra_args": True}


class Commands(click.Group):
    """A group that imports a command of its `table` when it is asked for."""

    def __init__(self, *arguments: Any, table: Table, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order of the table, which is the order of use."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        module, attribute, _ = self.table.get(ALIASES.get(cmd_name, cmd_name), (None, None, None))
        if module is None or attribute is None:
            return None
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list from the table: `iii --help` imports no command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in self.table.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, suggesting the nearest one for a typo."""
        if not ctx.resilient_parsing and args[0] not in self.table and not args[0].startswith("-"):
            names = nearest_names(args[0], self.table)
            hint = f"did you mean `{ctx.command_path} {names[0]}`?" if names else f"see `{ctx.command_path} --help`"
            words = f"{ctx.command_path} {args[0]}".removeprefix("iii ")
            raise UsageError(f"there is no command `{words}`", hint)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="iii-engine", prog_name="iii")
def root() -> None:
    """iii: workers are plain scripts, functions are callable from anywhere."""


@click.group("worker", cls=Commands, table=WORKER_COMMANDS)
def worker() -> None:
    """Restart, stop or start a worker; look at the workers, add and remove some."""


@click.group("project", cls=Commands, table=PROJECT_COMMANDS)
def project() -> None:
    """Make a project."""


class Trigger(click.Command):
    """`iii trigger`, for `iii --help` and shells; `main` goes to what it does directly."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Complete functions, their arguments and options, which click does not know."""
        from cli.commands.completion import of_trigger  # shells only

        return of_trigger(ctx.args, incomplete)


@click.command("trigger", cls=Trigger, add_help_option=False, context_settings=_ANY_WORDS)
@click.pass_context
def trigger(context: click.Context) -> int:
    """Call a function and print its result."""
    from cli.trigger.run import run as run_trigger  # as above

    return run_trigger(context.args)


def run(arguments: list[str]) -> int:
    """Run one command line; return its exit code, 0 for a command that returns none. Raises UsageError."""
    if "_III_COMPLETE" in os.environ:
        from cli.commands.completion import limit_time  # shells only; has the classes of the shells as well

        limit_time()
    try:
        code = root.main(arguments, prog_name="iii", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "")
        return 0
    except click.Abort:
        raise KeyboardInterrupt from None
    except SystemExit as error:
        # Besides shell completion, which exits with 0, click exits by itself for a broken pipe only.
        if error.code:
            raise BrokenPipeError from None
        raise
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        raise UsageError(error.format_message(), f"see `{context.command_path} --help`" if context else "") from None
    return code if isinstance(code, int) else 0
