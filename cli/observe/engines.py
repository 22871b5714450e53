"""What all engines of a cluster answer, asked through one of them; and `iii cluster`, which shows the engines.

A project without `[cluster]` has one engine, and an answer of it alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from cli.client.connection import Connection, connect
from cli.client.errors import UsageError
from cli.commands.options import engine_options
from cli.text.output import shown, shown_json, write
from cli.text.table import duration, table
from iii.errors import InvocationError
from iii.suggestions import did_you_mean

# Milliseconds that another engine may take to answer what is only shown.
ANSWER_TIMEOUT_MS = 5000


def engine_name_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--engine-name`, which keeps what one engine of a cluster has."""
    return click.option("--engine-name", metavar="NAME", help="Only what this engine of the cluster has.")(function)


def check_engine_name(answer: dict[str, Any], name: str | None) -> None:
    """Raise UsageError for a name that no engine has, by an answer that names the engines."""
    known = answer.get("engines", [])
    if name is not None and name not in known:
        if not known:
            raise UsageError("--engine-name: this project has one engine", "add a [cluster] to iii.toml")
        hint = did_you_mean(name, known) or f"there are: {', '.join(known)}"
        raise UsageError(f"there is no engine `{name}`", hint)


def answers(
    connection: Connection, function_id: str, data: dict[str, Any], name: str | None
) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yield each engine's answer with its name; None and the only answer without a cluster.

    An engine that does not answer is named on stderr, and the others are shown.
    """
    own = connection.look_up(function_id, data)
    check_engine_name(own, name)
    for engine in own.get("engines", [None]):
        if name not in (None, engine):
            continue
        if engine == own.get("engine"):
            yield engine, own
            continue
        answer = connection.request(function_id, data, ANSWER_TIMEOUT_MS, namespace=f"engine:{engine}")
        if answer.get("error"):
            sys.stderr.write(shown(f"engine {engine} does not answer: {answer['error']['message']}") + "\n")
        else:
            yield engine, answer["result"]


def merged(
    connection: Connection, function_id: str, data: dict[str, Any], name: str | None, key: str
) -> dict[str, Any]:
    """Return `{KEY: rows}` of all engines together; in a cluster each row has its `engine`."""
    rows: list[dict[str, Any]] = []
    for engine, answer in answers(connection, function_id, data, name):
        rows += [row if engine is None else {**row, "engine": engine} for row in answer[key]]
    return {key: rows}


@click.command("cluster")
@engine_options
def cluster(engine: str | None, as_json: bool) -> None:
    """Show the engines of the cluster, and what is not as it should be."""
    with connect(engine) as connection:
        try:
            described = connection.look_up("engine::cluster::info")
        except InvocationError as error:
            if error.code != "function_not_found":
                raise
            raise UsageError("this project has one engine", "add a [cluster] to iii.toml: docs/cluster.md") from None
    if as_json:
        write(shown_json(described))
        return
    server = described["server"] if described["connected"] else "no NATS server"
    write(shown(f"cluster {described['name']}, engine {described['engine']}, connected to {server}"))
    columns = ("ENGINE", "LABELS", "FUNCTIONS", "CALLS", "UP", "HEARD", "HOST", "PID", "VERSION")
    write(table(columns, map(_cells, described["engines"]), drop=("VERSION", "PID", "HOST", "LABELS")))
    for sentence in described["unmet"] + described["conflicts"]:
        write(shown(f"! {sentence}"))


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    name = f"{row['engine']} (this)" if row["is_this"] else row["engine"]
    up = duration(time.time() - row["started_at_ms"] / 1000)
    heard = None if row["is_this"] else f"{row['silent_ms']} ms ago"
    labels = ", ".join(row["labels"])
    return name, labels, row["functions"], row["calls"], up, heard, row["host"], row["pid"], row["version"]
