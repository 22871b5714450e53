"""`iii types` for a project of Python, Node and Rust workers: checked by mypy and tsc, and run in both languages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from cli.stubs.command import stubs_of
from cli.stubs.contract import Function
from tests.support import official
from tests.support.dev_project import ROOT, Project, running_project
from tests.support.json_schemas import CONTRACTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
BUILD = 900.0

TOML = """\
[engine]
listen = "127.0.0.1:0"

[workers.shop]
run = "shop.py"

[workers.cart]
run = "node cart.mjs"
watch = ["cart.mjs"]

[workers.words]
run = "cargo run --quiet"
watch = ["src/**/*.rs"]
ready_timeout = "10m"
pass_env = ["CARGO_*", "RUSTUP_*"]
"""
SHOP = '''\
from dataclasses import dataclass
from typing import Literal

from iii import register_worker

worker = register_worker()


@dataclass
class Order:
    """What a customer asks for."""

    item: str
    quantity: int = 1


@worker.function("shop::order")
def order(customer: str, order: Order, speed: Literal["slow", "fast"] = "slow") -> dict[str, float]:
    """Take an order."""
    return {"price": order.quantity * (3.0 if speed == "fast" else 1.0)}
'''
CART = """\
import { registerWorker } from 'iii-sdk'
const worker = registerWorker(process.env.III_URL, { workerName: 'cart' })
const line = { type: 'object', properties: { price: { type: 'number' } }, required: ['price'] }
const lines = { type: 'array', items: line }
worker.registerFunction(
  'cart::total',
  async ({ lines }) => ({ total: lines.reduce((sum, line) => sum + line.price, 0) }),
  {
    request_format: { type: 'object', properties: { lines }, required: ['lines'] },
    response_format: { type: 'object', properties: { total: { type: 'number' } }, required: ['total'] },
  },
)
"""
CARGO = """\
[package]
name = "typed-words"
version = "0.1.0"
edition = "2024"
publish = false

[dependencies]
iii-sdk = "0.25"
schemars = "0.8"
serde = { version = "1", features = ["derive"] }
tokio = { version = "1", features = ["macros", "rt-multi-thread", "signal"] }
"""
RUST = """\
use iii_sdk::{Error, InitOptions, RegisterFunction, register_worker_from_env};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Deserialize, JsonSchema)]
enum Unit { Words, Letters }

#[derive(Deserialize, JsonSchema)]
struct Text {
    /// What is counted.
    text: String,
    unit: Option<Unit>,
}

#[derive(Serialize, JsonSchema)]
struct Count { count: usize }

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let worker = register_worker_from_env(InitOptions::default());
    worker.register_function(
        "words::count",
        RegisterFunction::new_async(|input: Text| async move {
            let count = match input.unit {
                Some(Unit::Letters) => input.text.len(),
                _ => input.text.split_whitespace().count(),
            };
            Ok::<_, Error>(Count { count })
        }),
    );
    signal(SignalKind::terminate())?.recv().await;
    worker.shutdown_async().await;
    Ok(())
}
"""
PYTHON_CALLS = {
    'functions.shop.order(customer="ada", order={"item": "tea"}, speed="fast")["price"] + 1.0': "",
    'functions.cart.total(lines=[{"price": 1.5}])["total"] + 1.0': "",
    'functions.words.count(text="a b", unit="Letters")["count"] + 1': "",
    'functions.shop.order(customer="ada", order={"item": "tea"}, speed="quick")': "speed",
    'functions.shop.order(customer="ada", order={"quantity": 2})': 'Missing key "item"',
    'functions.cart.total(lines=[{"prize": 1.5}])': 'Extra key "prize"',
    'functions.cart.total()["total"]': "lines",
    "functions.words.count(text=3)": 'expected "str"',
    'functions.words.count(text="a")["words"]': 'no key "words"',
    "functions.words.cuont(text='a')": "cuont",
}
TYPESCRIPT_CALLS = {
    "(await f.shop.order({ customer: 'ada', order: { item: 'tea' }, speed: 'fast' })).price.toFixed()": "",
    "(await f.cart.total({ lines: [{ price: 1.5 }] }, { timeoutMs: 500 })).total.toFixed()": "",
    "(await f.words.count({ text: 'a b', unit: 'Letters' })).count.toFixed()": "",
    "await f.shop.order({ customer: 'ada', order: { item: 'tea' }, speed: 'quick' })": "speed|quick",
    "await f.shop.order({ customer: 'ada', order: { quantity: 2 } })": "item",
    "await f.cart.total({ lines: [{ prize: 1.5 }] })": "prize",
    "await f.cart.total()": "Expected",
    "await f.words.count({ text: 3 })": "number",
    "(await f.words.count({ text: 'a' })).words": "words",
    "await f.words.cuont({ text: 'a' })": "cuont",
}
ASKING = """\
from iii import register_worker
from iii_functions import AsyncFunctions, Functions

worker = register_worker()
functions, twins = Functions(worker), AsyncFunctions(worker)


@worker.function("asking::all")
def ask() -> list[float]:
    order = functions.shop.order(customer="ada", order={"item": "tea", "quantity": 2})
    total = functions.cart.total(lines=[{"price": 1.5}])["total"]
    return [order["price"], total, functions.words.count(text="a b c")["count"]]


@worker.function("asking::twins")
async def ask_async() -> float:
    return (await twins.words.count(text="a b c", unit="Letters"))["count"]
"""
ASKING_NODE = """\
import { registerWorker } from 'iii-sdk'
import { functions } from './stubs/index.js'
const worker = registerWorker(process.env.III_URL, { workerName: 'node' })
const f = functions(worker)
worker.registerFunction('node::all', async () => {
  const order = await f.shop.order({ customer: 'ada', order: { item: 'tea', quantity: 2 } })
  const { total } = await f.cart.total({ lines: [{ price: 1.5 }] })
  const { count } = await f.words.count({ text: 'a b c' })
  return [order.price, total, count]
})
"""
NPM = {"dependencies": {"iii-sdk": official.NODE_VERSION}, "devDependencies": {"typescript": "^5.6.0"}}


def iii(project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", *words]
    env = official.plain_environment() | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=project.folder, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("typed")
    (folder / "src").mkdir()
    files = {"iii.toml": TOML, "shop.py": SHOP, "cart.mjs": CART, "Cargo.toml": CARGO, "src/main.rs": RUST}
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "Cargo.lock").write_bytes((ROOT / "examples" / "rust" / "Cargo.lock").read_bytes())
    (folder / "node_modules").symlink_to(official.typescript_with(NPM))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CARGO_TARGET_DIR", str(official.CACHE / "rust-target"))
        patch.setenv("CARGO_PROFILE_DEV_DEBUG", "0")
        with running_project(folder, BUILD) as running:
            caller = running.caller()
            # A program that is new to the engine counts as ready after some silence, whatever it is still building.
            while caller.call("words::count", {"text": ""}).get("error", {}).get("code") == "function_not_found":
                pass
            caller.close()
            done = iii(running, "types", "--python", "iii_functions", "--typescript", "stubs")
            assert done.returncode == 0, done.stderr
            yield running


@pytest.mark.parametrize(("call", "mistake"), PYTHON_CALLS.items())
def test_mypy_accepts_right_calls_and_refuses_wrong_ones(project: Project, call: str, mistake: str) -> None:
    script = project.folder / "call.py"
    script.write_text(f"from iii_functions import Functions\n\n\ndef use(functions: Functions) -> None:\n    {call}\n")
    command = [sys.executable, "-m", "mypy", "--strict", "call.py"]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode != 0) == bool(mistake), done.stdout
    assert mistake in done.stdout


@pytest.mark.parametrize(("call", "mistake"), TYPESCRIPT_CALLS.items())
def test_tsc_accepts_right_calls_and_refuses_wrong_ones(project: Project, call: str, mistake: str) -> None:
    head = "import { registerWorker } from 'iii-sdk'\nimport { functions } from './stubs/index.js'\n"
    (project.folder / "call.mts").write_text(f"{head}const f = functions(registerWorker('ws://x'))\n;{call}\n")
    options = ["--strict", "--noEmit", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
    command = ["node_modules/.bin/tsc", *options, "call.mts"]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode != 0) == bool(mistake), done.stdout
    assert any(word in done.stdout for word in mistake.split("|"))


def test_the_stubs_call_all_three_from_python_and_from_node(project: Project) -> None:
    (project.folder / "asking.py").write_text(ASKING)
    (project.folder / "asking.mjs").write_text(ASKING_NODE)
    with (project.folder / "iii.toml").open("a") as toml:
        toml.write('[workers.asking]\nrun = "asking.py"\n[workers.node]\nrun = "node asking.mjs"\n')
    project.hear(r"asking.*2 functions")
    project.hear(r"node.*1 function")
    caller = project.caller()
    assert caller.result("asking::all") == [2.0, 1.5, 3]
    assert caller.result("asking::twins") == 5
    assert caller.result("node::all") == [2, 1.5, 3]
    caller.close()


def test_a_breaking_change_is_found(project: Project) -> None:
    place = ("--python", "iii_functions", "--typescript", "stubs")
    assert iii(project, "types", *place).returncode == 0
    assert iii(project, "types", "--check", *place).stdout.startswith("unchanged: ")
    script = project.folder / "shop.py"
    script.write_text(script.read_text().replace("order: Order,", "order: Order, country: str,"))
    project.hear(r"shop\s+~.*reloaded")
    done = iii(project, "types", "--check", *place)
    assert (done.returncode, done.stdout) == (1, "breaking    shop::order  needs `country` now\n")
    rows = json.loads(iii(project, "types", "--check", "--json", *place).stdout)["changes"]
    assert rows == [
        {"function_id": "shop::order", "namespace": "default", "breaking": True, "change": "needs `country` now"}
    ]


# Without shrinking: each example is a run of the compiler.
@settings(max_examples=6, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(CONTRACTS)
def test_every_contract_gives_declarations_that_the_compiler_accepts(
    tmp_path_factory: pytest.TempPathFactory, functions: list[Function]
) -> None:
    folder = tmp_path_factory.mktemp("declared")
    (folder / "index.d.ts").write_text(stubs_of(functions, "typescript")["index.d.ts"])
    compiler = official.typescript_with(NPM) / ".bin" / "tsc"
    command = [str(compiler), "--strict", "--noEmit", "--skipLibCheck", "false", "index.d.ts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
