"""`iii config ...`: printers over the functions of the configuration worker."""

from __future__ import annotations

import click

from cli.client.connection import connect
from cli.client.errors import UsageError
from cli.commands import completion
from cli.commands.options import engine_options
from cli.text.output import shown_json, write
from cli.text.table import table
from cli.trigger.payload import build, convert


@click.group("config")
def command() -> None:
    """Read and change settings while the workers run."""


@command.command("list")
@engine_options
def list_(engine: str | None, as_json: bool) -> None:
    """List the configurations; --json prints one object a line, with its schema."""
    with connect(engine) as connection:
        rows = connection.look_up("configuration::list")["configurations"]
    if as_json:
        for row in rows:
            write(shown_json(row, raw=True))
        return
    cells = [(row["id"], row["name"], row["description"]) for row in rows]
    write(table(("ID", "NAME", "DESCRIPTION"), cells, cut="DESCRIPTION"))


@command.command("get")
@click.argument("id", shell_complete=completion.configuration_ids)
@click.option("--raw", is_flag=True, help="Leave ${VAR} as it is.")
@engine_options
def get(id: str, raw: bool, engine: str | None, as_json: bool) -> None:
    """Print the value of ID; exit code 1 when there is none of that id."""
    with connect(engine) as connection:
        value = connection.look_up("configuration::get", {"id": id, "raw": raw})["value"]
    write(shown_json(value, raw=as_json))


@command.command("set")
@click.argument("id", shell_complete=completion.configuration_ids)
@click.argument("values", nargs=-1, metavar="VALUE | KEY=VALUE...")
@click.option("--unset", multiple=True, metavar="KEY", help="Take this key away.")
@engine_options
def set_(id: str, values: tuple[str, ...], unset: tuple[str, ...], engine: str | None, as_json: bool) -> None:
    """Change the value of ID: single keys by KEY=VALUE, or all of it by one VALUE of JSON."""
    pairs = [value.partition("=") for value in values]
    is_whole = len(values) == 1 and not unset and (values[0][:1] in ("{", "[", '"') or "=" not in values[0])
    wrong = next((value for value, (key, equals, _) in zip(values, pairs, strict=True) if not (key and equals)), None)
    if not is_whole and wrong is not None:
        raise UsageError(f"{wrong} is no KEY=VALUE", "give pairs, or one JSON value")
    if not values and not unset:
        raise UsageError("there is nothing to set", f"give KEY=VALUE, or a JSON value: iii config set {id} KEY=VALUE")
    with connect(engine) as connection:
        if is_whole:
            value = convert(values[0])
        else:
            schema = connection.call("configuration::schema", {"id": id})["schema"]
            current = connection.call("configuration::get", {"id": id, "raw": True})["value"]
            if not isinstance(current, dict | None):
                raise UsageError(f"the value of {id} is no object, so it has no keys", "give one JSON value")
            value = build([(key, text) for key, _, text in pairs], current or {}, schema)
            missing = next((key for key in unset if key not in value), None)
            if missing is not None:
                raise UsageError(f"{id} has no key {missing}", f"`iii config get {id} --raw` shows them")
            value = {key: each for key, each in value.items() if key not in unset}
        result = connection.call("configuration::set", {"id": id, "value": value})
    if as_json:
        write(shown_json(result, raw=True))
