"""iii.toml -> specs, and the words of every mistake with its line and column."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iii.engine.config.project import find_project, load_project
from iii.engine.config.spec import EngineSpec, ProjectSpec
from iii.errors import ProjectError

Load = Callable[..., ProjectSpec]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Return a function that writes iii.toml beside workers/math.py and a .env, and loads it."""
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "math.py").touch()
    (tmp_path / "one.env").write_text("ONE=1\n")

    def write_and_load(text: str | bytes, profile: str | None = None, **environ: str) -> ProjectSpec:
        file = tmp_path / "iii.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_project(file, environ=environ, profile=profile)

    return write_and_load


def worker(load: Load, keys: str, **environ: str) -> Any:
    """Return the spec of a worker with these keys."""
    return load(f'[workers.a]\nrun = "ls"\n{keys}\n', **environ).workers["a"]


FULL = """
[engine]
listen = "[::1]:0"
invocation_timeout = "100ms"

[workers.math]
run = "workers/math.py"
[workers.web]
run = "node 'my web.mjs' ${PORT}"
after = ["math"]
watch = ["templates/**"]
env = { GREETING = "${GREETING:hi}", PRICE = "$${NAME}" }
env_file = "one.env"
pass_env = ["AWS_*"]
instances = 2
concurrency = 8
restart = "always"
reload = "exclusive"
ready_timeout = "1.5m"
stop_timeout = "0s"
drain_timeout = "2h"
max_memory = "512MiB"
pre = "make -s"
cwd = "workers"
namespace = "shop"
keep_children = true
validate = false
[workers.iii-state]
[workers.http.config]
port = 3111
hosts = ["${HOST:-localhost}"]
"""


def test_a_duration_may_be_in_days(load: Load) -> None:
    assert load('[engine]\ninvocation_timeout = "1d"\n').engine.invocation_timeout == 86_400
    with pytest.raises(ProjectError, match='to "3600s", got "3d"'):
        worker(load, 'ready_timeout = "3d"')


def test_every_key_reaches_the_spec(load: Load, tmp_path: Path) -> None:
    project = load(FULL, PORT="80 90")
    web = project.workers["web"]
    assert (project.root, project.name, project.state_dir) == (tmp_path, tmp_path.name, tmp_path / ".iii")
    assert project.engine == EngineSpec("[::1]:0", 3, 0.1)
    assert web.command == ("node", "my web.mjs", "80 90")
    assert (web.script, web.standard, web.python) == (None, None, None)
    assert dict(web.env) == {"GREETING": "hi", "PRICE": "${NAME}"}
    assert (web.env_files, web.pass_env, web.cwd) == ((tmp_path / "one.env",), ("AWS_*",), tmp_path / "workers")
    assert (web.after, web.watch, web.instances, web.concurrency) == (("math",), ("templates/**",), 2, 8)
    assert (web.restart, web.reload, web.namespace) == ("always", "exclusive", "shop")
    assert (web.ready_timeout, web.stop_timeout, web.drain_timeout) == (90.0, 0.0, 7200.0)
    assert (web.max_memory, web.pre, web.keep_children, web.validate) == (512 * 1024**2, ("make", "-s"), True, False)
    assert web.line == 8


def test_a_worker_without_run_is_the_standard_worker_of_its_name(load: Load) -> None:
    workers = load(FULL, PORT="1").workers
    assert (workers["iii-state"].standard, workers["http"].standard) == ("state", "http")
    assert workers["http"].config == {"port": 3111, "hosts": ["localhost"]}


def test_a_python_file_is_a_script_also_with_spaces_in_its_name(load: Load, tmp_path: Path) -> None:
    (tmp_path / "my worker.py").touch()
    spec = load('[workers.a]\nrun = "my worker.py"').workers["a"]
    assert (spec.script, spec.command) == (tmp_path / "my worker.py", ())


def test_a_script_may_stand_outside_the_project(load: Load, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside.py"
    outside.touch()
    assert load(f'[workers.a]\nrun = "../{outside.name}"').workers["a"].script == tmp_path / ".." / outside.name


def test_a_command_that_ends_in_a_python_file_stays_a_command(load: Load) -> None:
    assert load('[workers.a]\nrun = "sh -u workers/math.py"').workers["a"].command[0] == "sh"


def test_no_shell_reads_a_command(load: Load) -> None:
    assert load("[workers.a]\nrun = 'echo $HOME; rm *'").workers["a"].command == ("echo", "$HOME;", "rm", "*")


def test_watch_false_turns_reload_off(load: Load) -> None:
    assert worker(load, "watch = false").watch is None


BASE = '[workers.a]\nrun = "ls"\n'
MISTAKES = [
    ("", "iii.toml:1:1: no workers are declared; add a [workers.NAME] table, or run `iii init`"),
    ("[workers.a", "iii.toml:1:11: expected ']' at the end of a table declaration"),
    ("a = 1\nb = \n", "iii.toml:2:5: there is no value behind the `=`"),
    (b"[workers.a]\nrun = '\xff'", "iii.toml:2:8: the byte 0xff is not UTF-8"),
    ("[worker.a]", "iii.toml:1:1: unknown table `worker`; did you mean `workers`?"),
    ("workers = 1", "iii.toml:1:1: workers must be a table; write [workers.NAME]"),
    ("[workers]\na = 1", "iii.toml:2:1: workers.a must be a table; write [workers.NAME]"),
    (BASE + "\n[workers.b]\nrun = 'x'\n[workers.a]", "iii.toml:6:1: `workers.a` is written twice, first in line 1"),
    (BASE + 'run = "x"', "iii.toml:3:1: `workers.a.run` is written twice, first in line 2"),
    (
        BASE + "[workers.A]",
        "iii.toml:3:1: the worker `A` is also declared as `a` in line 1; names must differ by more than case",
    ),
    (
        '[workers."a/b"]',
        "iii.toml:1:1: `a/b` cannot name a worker; a name is letters, digits, `_`, `-` and `.`, "
        "begins with a letter or digit, at most 64",
    ),
    (BASE + "  restrat = 1", "iii.toml:3:3: unknown key `restrat`; did you mean `restart`?"),
    (
        "[engine]\nlisten = 'x'",
        'iii.toml:2:1: listen must be "HOST:PORT" with a port from 0 to 65535, or "off", got "x"',
    ),
    ("[engine]\nlisten = 'h:65536'", "iii.toml:2:1: listen must be"),
    ("[engine]\nconnections = 0", "iii.toml:2:1: connections must be a whole number from 1 to 100000, got 0"),
    ('[engine]\nnamespace_grace = "2m"', 'iii.toml:2:1: namespace_grace must be a duration from "0.01s" to "60s"'),
    ('[engine]\nmemory = "1MB"', 'iii.toml:2:1: memory must be a size from "64MB" to "1000000GB", got "1MB"'),
    ("[engine]\nport = 1", "iii.toml:2:1: unknown key `port`; known keys are listen, invocation_timeout"),
    ("[workers.a]\nrun = 1", "iii.toml:2:1: run must be a string, a .py file or a command line"),
    ("[workers.a]\nrun = ''", 'iii.toml:2:1: run must be a command line, got ""'),
    ('[workers.a]\nrun = "echo \'a"', 'iii.toml:2:1: run: no closing quotation in "echo \'a"'),
    ("[workers.stat]", "iii.toml:1:1: the worker `stat` has no `run`; did you mean `state`?"),
    ("[workers.state]\ninstances = 2", "iii.toml:2:1: a standard worker has one instance; it owns its files"),
    (BASE + "instances = 0", "iii.toml:3:1: instances must be a whole number from 1 to 64, got 0"),
    (BASE + "instances = true", "iii.toml:3:1: instances must be a whole number from 1 to 64, got true"),
    (BASE + "instances = 1.5", "iii.toml:3:1: instances must be a whole number from 1 to 64, got 1.5"),
    (BASE + "concurrency = -1", "iii.toml:3:1: concurrency must be a whole number from 1 to 100000, got -1"),
    (
        BASE + "ready_timeout = 5",
        'iii.toml:3:1: ready_timeout must be a duration from "0.1s" to "3600s", got 5; write "5s"',
    ),
    (BASE + "ready_timeout = '0s'", 'iii.toml:3:1: ready_timeout must be a duration from "0.1s" to "3600s", got "0s"'),
    (BASE + "stop_timeout = nan", "iii.toml:3:1: stop_timeout must be a duration"),
    (BASE + "max_memory = '12'", 'iii.toml:3:1: max_memory must be a size from "1MB" to "1000000GB", got "12"'),
    (BASE + "restart = 'no'", 'iii.toml:3:1: restart must be "always" or "on-failure" or "never", got "no"'),
    (BASE + "restart = []", "iii.toml:3:1: restart must be"),
    (BASE + "watch = true", "iii.toml:3:1: watch must be a list of globs, or false, got true"),
    (BASE + "watch = ['a', 1]", "iii.toml:3:15: watch must hold strings, got 1"),
    (BASE + "after = 'b'", 'iii.toml:3:1: after must be a list of worker names, got "b"'),
    (BASE + "after = [\n  'b',\n]", "iii.toml:4:3: after: there is no worker `b`; declare it"),
    (BASE + "after = ['a']", "iii.toml:3:10: after: a -> a is a circle; break it"),
    (
        BASE + "after = ['b']\n[workers.b]\nrun = 'ls'\nafter = ['a']",
        "iii.toml:3:10: after: a -> b -> a is a circle; break it",
    ),
    (BASE + "env = 1", "iii.toml:3:1: env must be a table of strings, got 1"),
    (BASE + "env = { A = 1 }", 'iii.toml:3:9: A must be a string, got 1; write "1"'),
    (BASE + "env = { 'A B' = '' }", 'iii.toml:3:9: "A B" is no name of a variable'),
    (BASE + "[workers.a.env]\nIII_URL = ''", "iii.toml:4:1: III_URL is reserved; III_ names are the engine's"),
    (BASE + 'env = { A = "\\u0000" }', "iii.toml:3:9: A holds a NUL character"),
    (BASE + 'namespace = "\\u0000"', "iii.toml:3:1: namespace holds a NUL character"),
    (BASE + "namespace = ' '", "iii.toml:3:1: namespace is empty"),
    (BASE + "namespace = 'a b'", "iii.toml:3:1: namespace must be letters, digits, `_`, `-` and `.`, at most 64"),
    (BASE + "env_file = 1", "iii.toml:3:1: env_file must be a string or a list of strings, got 1"),
    (BASE + "keep_children = 1", "iii.toml:3:1: keep_children must be true or false, got 1"),
    (BASE + "pre = 1", "iii.toml:3:1: pre must be a command line, got 1"),
    (BASE + "config = 1", "iii.toml:3:1: config must be a table, got 1"),
    (BASE + "config.a.b = [inf]", "iii.toml:3:15: 0 must be a finite number, got inf"),
    (
        BASE + "config.day = 2024-01-01",
        'iii.toml:3:8: day must be something JSON can hold, got "2024-01-01"; write it as a string',
    ),
    (BASE + "python = 'python3'", "iii.toml:3:1: python is for a `run` that is a .py file"),
    (
        BASE + "env.TOKEN = '${SECRET}'",
        "iii.toml:3:5: workers.a.env.TOKEN: the variable SECRET is not set; set it, or write ${SECRET:default}",
    ),
    (BASE + "env.TOKEN = '${1}'", "iii.toml:3:5: TOKEN: a variable is written ${NAME} or ${NAME:default}"),
    (BASE + "[profiles.x]\nengine = 1", "iii.toml:4:1: unknown key `engine`; known keys are workers"),
    (BASE + "[profiles.x.workers.a]\nrestrat = 1", "iii.toml:4:1: unknown key `restrat`"),
]


@pytest.mark.parametrize(("text", "said"), MISTAKES)
def test_a_mistake_is_pointed_at_and_said_in_one_line(load: Load, text: str | bytes, said: str) -> None:
    with pytest.raises(ProjectError) as caught:
        load(text)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["script", "env_file", "cwd", "python"])
def test_a_path_that_is_not_there_is_named(load: Load, tmp_path: Path, key: str) -> None:
    run = "none/x.py" if key == "script" else "workers/math.py"
    extra = "" if key == "script" else f'{key} = "none/x"'
    with pytest.raises(ProjectError) as caught:
        load(f'[workers.a]\nrun = "{run}"\n{extra}')
    assert caught.value.line == (2 if key == "script" else 3)
    assert "none" in str(caught.value)


def test_a_circle_of_links_is_a_missing_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "a.py").symlink_to(tmp_path / "b.py")
    (tmp_path / "b.py").symlink_to(tmp_path / "a.py")
    with pytest.raises(ProjectError, match=r"there is no file a\.py"):
        load('[workers.a]\nrun = "a.py"')


def test_a_missing_file_a_folder_and_a_huge_file_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="no such file; make one with `iii init`"):
        load_project(tmp_path / "iii.toml", environ={})
    with pytest.raises(ProjectError, match="this is a folder"):
        load_project(tmp_path, environ={})
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(ProjectError, match="this is a named pipe"):
        load_project(tmp_path / "pipe.toml", environ={})
    (tmp_path / "big.toml").write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ProjectError, match="larger than 1024 KiB"):
        load_project(tmp_path / "big.toml", environ={})


def test_a_file_as_large_as_the_limit_is_read(load: Load) -> None:
    text = BASE.encode()
    assert "a" in load(text + b"#" * (1024 * 1024 - len(text))).workers


def test_a_value_never_shows_in_the_error_about_its_variable(load: Load) -> None:
    with pytest.raises(ProjectError) as caught:
        load(BASE + "env.A = '${TOKEN} ${MISSING}'", TOKEN="hunter2")
    assert "hunter2" not in str(caught.value)


def test_variables_come_from_the_shell_then_env_local_then_env(load: Load, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nB=1\nC=1\n")
    (tmp_path / ".env.local").write_text("A=2\nB=2\n")
    assert worker(load, 'env.ALL = "${A}${B}${C}"', A="3").env["ALL"] == "321"


def test_an_empty_variable_is_set(load: Load) -> None:
    assert worker(load, 'env.A = "<${EMPTY:default}>"', EMPTY="").env["A"] == "<>"


def test_a_profile_overrides_single_keys_and_only_when_asked_for(load: Load) -> None:
    text = BASE + "instances = 2\n[profiles.big.workers.a]\ninstances = 8\n[profiles.big.workers.extra]\nrun = 'ls'\n"
    assert load(text).workers["a"].instances == 2
    big = load(text, profile="big").workers
    assert (big["a"].instances, big["a"].command, big["extra"].line) == (8, ("ls",), 6)
    with pytest.raises(ProjectError, match=r"there is no profile `bgi`; did you mean `big`\?"):
        load(text, profile="bgi")


def test_a_mistake_in_a_profile_points_into_the_profile(load: Load) -> None:
    with pytest.raises(ProjectError, match=r"iii\.toml:4:1: instances must be"):
        load(BASE + "[profiles.big.workers.a]\ninstances = 0", profile="big")


def interpreter(folder: Path) -> Path:
    """Make a virtual environment's interpreter, a link as they are."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    return python


def test_the_python_of_a_worker_is_the_nearest_and_its_link_is_kept(load: Load, tmp_path: Path) -> None:
    def python(keys: str = "", **environ: str) -> Path | None:
        return load(f'[workers.a]\nrun = "workers/math.py"\n{keys}', **environ).workers["a"].python

    assert python() == Path(sys.executable)
    project = interpreter(tmp_path / ".venv")
    assert python() == project
    shell = interpreter(tmp_path / "shell")
    assert python(VIRTUAL_ENV=str(tmp_path / "shell")) == shell
    assert python(VIRTUAL_ENV=str(tmp_path / "gone")) == project
    own = interpreter(tmp_path / "workers" / ".venv")
    assert python(VIRTUAL_ENV=str(tmp_path / "shell")) == own
    assert python('python = "shell/bin/python"') == shell
    assert python('python = "shell"') == shell
    assert python('python = "python"', PATH=str(shell.parent)) == shell


def test_the_nearest_project_upwards_is_found(load: Load, tmp_path: Path) -> None:
    load(BASE)
    assert find_project(tmp_path / "workers") == tmp_path / "iii.toml"
    assert find_project(Path(os.sep)) is None


# Each took minutes, ran out of stack or ended in a traceback: the global timeout of the tests holds the time.
HOSTILE = {
    "a dotted key": (".".join(["a"] * 50_000) + " = 1", "1:129: keys and values are nested deeper than 64"),
    "a dotted table": ("\n[" + ".".join(["a"] * 50_000) + "]", "2:130: keys and values are nested deeper than 64"),
    "nested arrays": ("a = " + "[" * 5000 + "]" * 5000, "1:69: keys and values are nested deeper than 64"),
    "arrays without an end": ("a = " + "[" * 100_000, "1:69: keys and values are nested deeper than 64"),
    "nested tables": ("a = " + "{a=" * 5000, "1:197: keys and values are nested deeper than 64"),
    "a long number": ("\n[x]\na = " + "9" * 10_000, "3:5: a whole number has more than 4000 digits"),
    "a long hexadecimal": ("[workers.a]\nrun='ls'\ninstances = 0x" + "f" * 10_000, "got a number too long to show"),
    "a number for a config": ("[workers.http.config]\nport = 0x" + "f" * 17, "2:1: port must be a number of at most"),
    "references without an end": (
        "[workers.a]\nrun='ls'\n[workers.a.env]\nA='" + "${a:" * 200_000 + "'",
        "4:1: A: a variable is written",
    ),
    "a long command": ("[workers.a]\nrun='" + "a" * 900_000 + "'", "2:1: run is longer than 32768 characters"),
    "a long key": ("[workers.a]\n" + "k" * 900_000 + " = 1", f"2:1: unknown key `{'k' * 57}...`"),
    "a long circle": (
        "\n".join(f"[workers.w{n}]\nrun='ls'\nafter=['w{(n + 1) % 5000}']" for n in range(5000)),
        "3:8: after: w0 -> w1 -> w2 -> w3 -> w4 -> w5 -> w6 -> w7 -> w8 -> w9 -> ... -> w0 is a circle",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_an_error_with_a_place(load: Load, name: str) -> None:
    text, message = HOSTILE[name]
    with pytest.raises(ProjectError) as caught:
        load(text)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_path_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"p\xff")
    os.mkdir(folder)
    Path(os.fsdecode(folder), "iii.toml").write_text("[workers.a]\nrun = 'ls'\n")
    with pytest.raises(ProjectError, match=r"the path of the project, .*p\\xff/iii.toml, is not UTF-8; rename"):
        load_project(Path(os.fsdecode(folder), "iii.toml"), environ={})


SEVERAL = """\
[engine]
lisen = "off"
invocation_timeout = "soon"
[workers.a]
run = "nodee x.js"
instances = 0
restrat = "never"
[workers.queue.config.queue_configs.mail]
max_retrys = 5
concurrency = "4"
[workers.http.config]
port = 99999
"""


def test_all_mistakes_of_a_file_are_told_at_once_in_their_order(load: Load, tmp_path: Path) -> None:
    (tmp_path / "node").touch()
    with pytest.raises(ProjectError) as caught:
        load(SEVERAL, PATH=str(tmp_path))
    first = caught.value
    assert [str(error) for error in (first, *first.others)] == [
        "iii.toml:2:1: unknown key `lisen`; did you mean `listen`?",
        'iii.toml:3:1: invocation_timeout must be a duration from "0.01s" to "86400s", got "soon"',
        "iii.toml:5:1: run: there is no program nodee; did you mean `node`?",
        "iii.toml:6:1: instances must be a whole number from 1 to 64, got 0",
        "iii.toml:7:1: unknown key `restrat`; did you mean `restart`?",
        "iii.toml:9:1: unknown key `max_retrys`; did you mean `max_retries`?",
        'iii.toml:10:1: concurrency must be a whole number from 1 to 2147483648, got "4"',
        "iii.toml:12:1: port must be a whole number from 0 to 65535, got 99999",
    ]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("nope-nope x", "there is no program nope-nope; install it, or write the path of its file"),
        ("cargo run", "there is no program cargo; install Rust"),
        ("math.py --fast", 'there is no program math.py; write run = "python math.py --fast": only a script'),
        ("workers/mathh.py", "there is no file mathh.py; did you mean `math.py`?"),
    ],
)
def test_a_program_that_is_not_there_is_said_with_the_way_out(load: Load, tmp_path: Path, run: str, said: str) -> None:
    with pytest.raises(ProjectError, match="iii.toml:2:1: run: " + said.replace("?", r"\?")):
        load(f"[workers.a]\nrun = '{run}'", PATH=str(tmp_path))


def test_a_program_that_is_made_before_each_start_need_not_be_there(load: Load) -> None:
    assert worker(load, "").command == ("ls",)
    spec = load('[workers.a]\nrun = "./bin/serve"\npre = "make serve"').workers["a"]
    assert spec.command == ("./bin/serve",)


LONG = "x" * 300


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (f"run = '{LONG}.py'", "run: there is no file "),
        (f"run = './{LONG}'", "run: there is no file "),
        (f"run = 'a.py'\ncwd = '{LONG}'", "cwd: there is no folder "),
        (f"run = 'a.py'\nenv_file = '{LONG}'", "env_file: there is no file "),
        (f"run = 'a.py'\npython = '{LONG}'", "python: there is no interpreter "),
        (f"run = 'a.py'\npython = './{LONG}'", "python: there is no interpreter "),
        ("run = 'a.py'\npython = '~nobody-of-this-name/python'", "python: there is no interpreter "),
        ('run = "a.py"\nwatch = ["a\\u0000/*"]', "watch holds a NUL character"),
        ('run = "a.py"\nenv_file = ["a\\u0000"]', "env_file holds a NUL character"),
    ],
)
def test_what_no_file_system_takes_is_said_as_what_is_not_there(
    load: Load, tmp_path: Path, table: str, said: str
) -> None:
    (tmp_path / "a.py").touch()
    with pytest.raises(ProjectError, match=f"iii.toml:[23]:[0-9]+: {said}"):
        load(f"[workers.a]\n{table}")


def test_a_file_that_is_not_there_is_a_mistake_for_a_check_and_none_for_a_start(load: Load, tmp_path: Path) -> None:
    assert load("[workers.a]\nrun = './bin/serve'").workers["a"].command == ("./bin/serve",)
    with pytest.raises(ProjectError, match=r"iii.toml:2:1: run: there is no file ./bin/serve; looked in "):
        load_project(tmp_path / "iii.toml", environ={}, is_check=True)
