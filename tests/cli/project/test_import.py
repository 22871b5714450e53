"""`iii import`: what the public system's files become, and what is refused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from cli.client.errors import UsageError
from cli.project.imports import MAX_BYTES, converted, read_yaml
from iii.engine.config.project import load_project
from iii.engine.security.rbac import Filter
from tests.support.command import Iii

# The forms of the public documentation, each with all that it can have here.
CONFIG = """
registration_namespace_grace_ms: 2000
workers:
  - name: iii-worker-manager
    config: {port: 4913, host: 127.0.0.1}
  - name: iii-worker-manager
    config:
      port: 49135
      middleware_function_id: gate::mw
      rbac:
        auth_function_id: gate::auth
        expose_functions:
          - match("api::*")
          - { match: "shop::*", namespace: shop }
          - metadata: { public: true, owner: match("team-*") }
  - id: iii-http
    config:
      port: ${PORT:3111}
      default_timeout: 30000
      cors: { allowed_origins: ["*"], allowed_methods: [GET] }
  - name: iii-state
    config: { adapter: { name: kv, config: { store_method: file_based, file_path: ./data/state } } }
  - name: iii-queue
    config:
      adapter: { name: redis, config: { redis_url: "redis://localhost:6379" } }
      queue_configs:
        mail: { max_retries: 5, concurrency: 10, type: fifo, message_group_field: user }
  - name: iii-cron
  - name: iii-pubsub
    config: { adapter: { name: local } }
  - name: iii-http-functions
    config: { security: { url_allowlist: ["*"], block_private_ips: true, require_https: true } }
  - name: iii-exec
    config: { exec: ["npm install", "npm run dev"], watch: ["src/**/*.ts"] }
  - name: iii-telemetry
"""
COMPOSE = """
version: 1
workers:
  queue:
    config: { queue_configs: { mail: { concurrency: 2 } } }
  math:
    command: [python, "math worker.py"]
    environment: [GREETING=hi, III_URL=x]
    depends_on: { iii-queue: { condition: ready } }
    config: { a: null, when: 2026-01-31 }
    image: ghcr.io/x/math
"""


def test_the_forms_of_a_config_become_a_project_that_is_valid(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    text, comments = converted(read_yaml(tmp_path / "config.yaml"), "config.yaml")
    (tmp_path / "iii.toml").write_text(text)
    project = load_project(tmp_path / "iii.toml", environ={})
    assert list(project.workers) == [
        *("http", "state", "queue", "cron", "pubsub", "http_functions", "exec"),
    ]
    assert (project.engine.listen, project.engine.namespace_grace) == ("127.0.0.1:4913", 2.0)
    (listener,) = project.engine.listeners
    assert (listener.address, listener.middleware_function_id) == ("127.0.0.1:49135", "gate::mw")
    assert listener.rules is not None
    assert listener.rules.expose_functions[:2] == (
        Filter(match='match("api::*")'),
        Filter(match="shop::*", namespace="shop"),
    )
    assert project.workers["http"].config["port"] == 3111
    assert project.workers["queue"].config == tomllib.loads(text)["workers"]["queue"]["config"]
    assert "adapter" not in project.workers["queue"].config
    assert project.workers["exec"].command == ("sh", "-c", "npm run dev")
    assert project.workers["exec"].pre == ("sh", "-c", "(npm install)")
    assert [comment.partition(":")[0] for comment in comments] == [
        *("iii-http.config.port", "iii-queue.config.adapter.name", "iii-telemetry"),
    ]
    assert '# iii-queue.config.adapter.name = {"name": "redis"' in text


def test_the_forms_of_a_compose_file_become_workers_of_ones_own(iii: Iii, folder: Path) -> None:
    (folder / "worker-compose.yaml").write_text(COMPOSE)
    done = iii("import", "worker-compose.yaml")
    assert (done.returncode, done.stdout) == (0, "wrote iii.toml\n")
    assert done.stderr.splitlines() == [
        "warning: version: iii.toml has no such key",
        "warning: math.env.III_URL: III_ names are the engine's",
        "warning: math.image: a worker has no such key here",
    ]
    math = tomllib.loads((folder / "iii.toml").read_text())["workers"]["math"]
    assert math == {
        "run": "python 'math worker.py'",
        "env": {"GREETING": "hi"},
        "after": ["queue"],
        "config": {"when": "2026-01-31"},
    }
    again = iii("import", "worker-compose.yaml")
    assert (again.returncode, "iii.toml exists already" in again.stderr) == (2, True)


def test_services_count_as_workers_and_nothing_of_them_is_dropped_silently() -> None:
    web = {"command": ["node", "web.js"], "env": {"A": 1, "B": True}, "replicas": 2, "depends_on": ["db", "iii-state"]}
    services = {"web": web | {"ports": ["80:80"]}, "db": {"run": "db.py", "environment": ["X=1=2", "BARE"]}}
    services["api"] = {"run": "api.py", "env": {"KEY": None}}
    text, comments = converted({"services": services, "workers": ["iii-state"]}, "worker-compose.yaml")
    workers = tomllib.loads(text)["workers"]
    assert workers == {
        "state": {},
        "web": {"run": "node web.js", "env": {"A": "1", "B": "true"}, "instances": 2, "after": ["db", "state"]},
        "db": {"run": "db.py", "env": {"X": "1=2"}, "pass_env": ["BARE"]},
        "api": {"run": "api.py", "pass_env": ["KEY"]},
    }
    assert comments == ["web.ports: a worker has no such key here"]


def test_what_is_still_missing_is_said(iii: Iii, folder: Path) -> None:
    (folder / "config.yaml").write_text("workers:\n  - name: mine\n    worker_path: .\n")
    body = json.loads(iii("import", "config.yaml", "--json").stdout)
    assert body["comments"] == ["mine.run: nothing here says what starts this worker: fill in `run`"]
    assert "run must be a command line" in body["missing"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("a: !!python/object:os.system {}", "is not YAML"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("\ta: 1", "is not YAML"),
        ("a: " + "[" * 100, "nests deeper than 32"),
        ("a: 1", "has no list `workers`"),
        ("workers: 3", "has no list `workers`"),
        ("workers: [3]", "a worker has no name"),
        ("workers: [{config: {}}]", "a worker has no name"),
        ("workers: {a: 3}", "the worker a must be a table"),
        ("", "has no list `workers`"),
    ],
)
def test_what_is_no_such_file_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        converted(read_yaml(path), path.name)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(UsageError, match=f"has more than {MAX_BYTES} bytes"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("text", "comment"),
    [
        ("workers: [iii-exec]", None),
        ("workers: [{name: iii-exec, config: {exec: 3}}]", None),
        ("workers: [{name: iii-worker-manager, config: 3}]", None),
        ("workers: [{name: iii-state, config: 3}]", None),
        ("workers: {a b: {run: ls}}", None),
        ('workers: {a: {run: ls, "x\\ny": "]\\n[b]"}}', "a.x y"),
        ("registration_namespace_grace_ms: soon\nworkers: []", "registration_namespace_grace_ms"),
    ],
)
def test_no_value_of_a_wrong_kind_breaks_the_file(tmp_path: Path, text: str, comment: str | None) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    made, comments = converted(read_yaml(path), path.name)
    assert set(tomllib.loads(made)) <= {"workers", "engine"}
    assert comment is None or comment.split()[0] in comments[0]
