"""`iii init [DIR]`: a project that runs, without a question.

The files of each template stand here as data: template -> path -> content.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from cli.client.errors import UsageError
from cli.commands.options import json_option
from cli.text.output import shown_json, write

_MATH = '''\
from iii import InitOptions, register_worker

worker = register_worker(options=InitOptions(worker_name="math"))


def add(payload: dict[str, float]) -> dict[str, float]:
    """Add two numbers."""
    return {"c": payload["a"] + payload["b"]}


worker.register_function(
    "math::add",
    add,
    request_format={
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
    },
)
'''

_TEST = """\
from iii.testing import Engine


def test_add_returns_the_sum(iii: Engine) -> None:
    assert iii.call("math::add", a=2, b=3) == {"c": 5}
"""

_IGNORE = """\
.iii/
.venv/
__pycache__/
.env.local
"""

_HEAD = """\
#:schema ./.iii/iii.schema.json
# One table a worker. `iii check` validates this file, `iii dev` runs it and follows its changes.

[workers.math]
run = "workers/math.py"
"""

_MAIL = '''\
from typing import Any

from iii import InitOptions, register_worker

worker = register_worker(options=InitOptions(worker_name="mail"))


def send(payload: dict[str, Any]) -> dict[str, bool]:
    """Send one mail. Called for each job of the queue `emails`; an exception means: try again later."""
    print(f"sending mail to {payload['to']}")
    return {"sent": True}


worker.register_function("mail::send", send)
'''

_WEB = '''\
from typing import Any

from iii import InitOptions, register_worker

worker = register_worker(options=InitOptions(worker_name="web"))


def add(request: dict[str, Any]) -> dict[str, Any]:
    """Answer POST /add with the sum of the body's `a` and `b`."""
    result = worker.trigger({"function_id": "math::add", "payload": request["body"]})
    return {"status_code": 200, "body": result}


worker.register_function("web::add", add)
worker.register_trigger(
    {"type": "http", "function_id": "web::add", "config": {"api_path": "/add", "http_method": "POST"}}
)
'''

_BASE = {"workers/math.py": _MATH, "tests/test_math.py": _TEST, ".gitignore": _IGNORE}

TEMPLATES: dict[str, dict[str, str]] = {
    "minimal": {"iii.toml": _HEAD, **_BASE},
    "http": {
        "iii.toml": _HEAD
        + '\n[workers.web]\nrun = "workers/web.py"\nafter = ["math", "http"]\n'
        + "\n[workers.http.config]\nport = 3111\n",
        **_BASE,
        "workers/web.py": _WEB,
    },
    "queue": {
        "iii.toml": _HEAD
        + '\n[workers.mail]\nrun = "workers/mail.py"\nafter = ["queue"]\n'
        + "\n[workers.queue.config.queue_configs.emails]\nmax_retries = 5\nconcurrency = 4\n",
        **_BASE,
        "workers/mail.py": _MAIL,
    },
}

# The command to try first in the second terminal.
FIRST_CALL = {
    "minimal": "iii trigger math::add a=2 b=3",
    "http": "curl -d '{\"a\": 2, \"b\": 3}' -H 'content-type: application/json' localhost:3111/add",
    "queue": "iii trigger mail::send to=ada@example.org --enqueue emails",
}


@click.command("init")
@click.argument("folder", default=".", metavar="[DIR]", type=click.Path(file_okay=False, path_type=Path))
@click.option("--template", type=click.Choice(list(TEMPLATES)), default="minimal", show_default=True)
@json_option
def command(folder: Path, template: str, as_json: bool) -> None:
    """Make a new project in DIR (default: here). Existing files are never overwritten."""
    files = TEMPLATES[template]
    for name in files:
        if (folder / name).exists() and name != ".gitignore":
            raise UsageError(f"{folder / name} exists already", "choose an empty folder: iii init NAME")
    created = []
    for name, content in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(content)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from None
        created.append(name)
    if as_json:
        write(shown_json({"created": created}))
        return
    write(f"  created {', '.join(created)}")
    write(f"  next: {'' if folder == Path() else f'cd {shlex.quote(str(folder))} && '}iii dev")
    write(f"  then, in a second terminal: {FIRST_CALL[template]}")
