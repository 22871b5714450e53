"""`iii backup` and `iii restore`: the stores of a project as one file, and back.

The file is a zip archive: `manifest.json`, and one database for each store, whole by itself. A database that a worker
has open is copied by that worker, any other one under its lock; so a backup is consistent for each store, and holds
what was acknowledged before it began.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import click

from cli.client.connection import Connection, connect
from cli.client.errors import UsageError
from cli.commands.options import file_option, json_option
from cli.commands.project_file import project_file
from cli.text.output import count, shown, shown_json, write
from cli.text.progress import progress
from iii.errors import IIIError
from iii.failure_text import named
from iii.version import VERSION

FORMAT = 1
MANIFEST = "manifest.json"
# A large store takes as long as its disk: no reason to give up.
COPY_TIMEOUT_MS = 6 * 3_600_000
CHUNK = 1024 * 1024
# What belongs to a database beside its file.
COMPANIONS = ("", "-wal", "-shm", ".mark")
ASIDE = ".before-restore"
_NAME = re.compile(r"[A-Za-z0-9_-]+\.db")


class BackupError(IIIError):
    """The backup was not made, or not restored; nothing was changed."""


@click.command("backup")
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@file_option
@json_option
def backup(target: Path, force: bool, file: Path | None, as_json: bool) -> None:
    """Copy the stores of the project (state, stream, queue, ...) into FILE, while it runs or not."""
    folder = project_file(file).absolute().parent / ".iii"
    if target.is_dir() or (target.exists() and not force):
        raise UsageError(f"{target} is there already", "give another name, or --force to replace it")
    if not target.absolute().parent.is_dir():
        raise UsageError(f"the folder {target.absolute().parent} is not there", "make it first")
    with progress("copying the stores", sum(path.stat().st_size for path in folder.glob("*.db"))) as advance:
        stores = _write_backup(folder, target, advance)
    if as_json:
        write(shown_json({"file": str(target), "stores": stores}))
    else:
        listed = ", ".join(f"{store['name']} {_size(store['bytes'])}" for store in stores)
        write(shown(f"{target}: {count(len(stores), 'store')}{f' ({listed})' if stores else ''}"))


def _write_backup(folder: Path, target: Path, advance: Callable[[int], None]) -> list[dict[str, Any]]:
    draft = target.with_name(f".{target.name}.part")
    stores: list[dict[str, Any]] = []
    try:
        with draft.open("xb" if not draft.exists() else "wb") as stream:
            os.fchmod(stream.fileno(), 0o600)
            with ZipFile(stream, "w", ZIP_DEFLATED, compresslevel=1) as archive:
                for name, copy in _copies(folder):
                    with copy.open("rb") as source, archive.open(name, "w", force_zip64=True) as member:
                        size, digest = _transfer(source, member, advance)
                    stores.append({"name": name, "bytes": size, "sha256": digest})
                made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                manifest = {"format": FORMAT, "version": VERSION, "time": made, "stores": stores}
                archive.writestr(MANIFEST, json.dumps(manifest, indent=2))
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(target)
    except OSError as error:
        raise BackupError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return stores


def _copies(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name, copy) of each store; a copy is removed when the next is asked for."""
    from stdlib_workers.storage import BACKUP, Refusal, copy_closed  # keeps `--help` light

    names = sorted(path.name for path in folder.glob("*.db") if path.is_file())
    with _engine_of(folder) as connection:
        owners = _owners(connection, BACKUP) if connection is not None else {}
        for name in names:
            store = name.removesuffix(".db")
            path = None
            if connection is not None and store in owners:
                namespace = owners[store]
                path = _copied_by_owner(connection, f"{BACKUP}{store}", namespace)
            try:
                # None: the worker keeps its data in memory now, and the file is from before.
                copy = Path(path) if path else copy_closed(folder / name)
            except Refusal as refusal:
                raise BackupError(str(refusal)) from None
            try:
                yield name, copy
            finally:
                copy.unlink(missing_ok=True)


def _owners(connection: Connection, prefix: str) -> dict[str, str]:
    query = {"prefix": prefix, "include_internal": True}
    rows = connection.call("engine::functions::list", query)["functions"]
    return {row["function_id"].removeprefix(prefix): row["namespace"] for row in rows}


def _copied_by_owner(connection: Connection, function_id: str, namespace: str) -> str | None:
    answer = connection.request(function_id, {}, COPY_TIMEOUT_MS, namespace=namespace)
    if "error" in answer:
        raise BackupError(named(function_id, str(answer["error"].get("message"))))
    path: str | None = answer["result"]["path"]
    return path


@contextmanager
def _engine_of(folder: Path) -> Iterator[Connection | None]:
    """Connect to the engine that runs in a folder, None when none does."""
    from iii.engine.boot.run_dir import lock_holder  # keeps `--help` light

    if lock_holder(folder) is None:
        yield None
        return
    try:
        address = json.loads((folder / "run" / "engine.json").read_text())["socket"]
    except (OSError, ValueError, KeyError):
        raise BackupError("the engine of this project is just starting or stopping; try again") from None
    with connect(address) as connection:
        yield connection


@click.command("restore")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@file_option
@json_option
def restore(source: Path, file: Path | None, as_json: bool) -> None:
    """Put the stores of a backup in the place of the project's; what they replace stays beside them."""
    from iii.engine.boot.run_dir import lock_holder  # keeps `--help` light

    folder = project_file(file).absolute().parent / ".iii"
    if (holder := lock_holder(folder)) is not None:
        raise UsageError(f"the project is running (process {holder})", "stop it with `iii stop` first")
    folder.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(ZipFile(source))
            manifest = json.loads(archive.read(MANIFEST))
            stores = manifest["stores"]
        except (OSError, BadZipFile, KeyError, ValueError, TypeError) as error:
            raise BackupError(f"{source} is not a backup of iii: {error}") from None
        if manifest.get("format") != FORMAT:
            raise BackupError(f"{source} was made by iii {manifest.get('version')}; restore it with that version")
        with progress("unpacking the stores", sum(member.file_size for member in archive.infolist())) as advance:
            _restore(archive, stores, folder, stack, advance)
    others = sorted({path.name for path in folder.glob("*.db")} - {store["name"] for store in stores})
    if as_json:
        write(shown_json({"file": str(source), "time": manifest["time"], "stores": stores, "untouched": others}))
        return
    listed = ", ".join(store["name"] for store in stores)
    write(shown(f"restored {listed or 'nothing'} as of {manifest['time']}; what was there before is in *{ASIDE}"))
    if others:
        write(shown(f"not in the backup, and left as they were: {', '.join(others)}"))


def _restore(
    archive: ZipFile, stores: list[dict[str, Any]], folder: Path, stack: ExitStack, advance: Callable[[int], None]
) -> None:
    from stdlib_workers.storage import Refusal, examine, lock, real_path  # keeps `--help` light

    ready: list[tuple[Path, Path]] = []
    try:
        for store in stores:
            if not _NAME.fullmatch(str(store["name"])):
                raise BackupError(f"the backup names a file {store['name']!r}, which is no store")
            real = real_path(folder / store["name"])
            stack.callback(os.close, lock(real, timeout=0))
            draft = real.with_name(f"{real.name}.restored")
            stack.callback(draft.unlink, missing_ok=True)
            _extract(archive, store, draft, advance)
            examine(draft)
            ready.append((draft, real))
    except Refusal as refusal:
        raise BackupError(str(refusal)) from None
    except (OSError, BadZipFile, KeyError) as error:
        raise BackupError(f"the backup cannot be unpacked: {error}; nothing was changed") from None
    _replace_all(ready)


def _extract(archive: ZipFile, store: dict[str, Any], draft: Path, advance: Callable[[int], None]) -> None:
    draft.unlink(missing_ok=True)
    with archive.open(store["name"]) as member, draft.open("xb") as stream:
        os.fchmod(stream.fileno(), 0o600)
        size, digest = _transfer(member, stream, advance, store["bytes"])
        os.fsync(stream.fileno())
    if (size, digest) != (store["bytes"], store["sha256"]):
        raise BackupError(f"{store['name']} in the backup is damaged: its checksum is another one; nothing was changed")


def _replace_all(ready: list[tuple[Path, Path]]) -> None:
    """Put all new files in place, or none: the old ones are moved aside first, and back when a move fails."""
    moved: list[tuple[Path, Path]] = []
    try:
        for _, real in ready:
            for end in COMPANIONS:
                aside = real.with_name(f"{real.name}{ASIDE}{end}")
                aside.unlink(missing_ok=True)
                with suppress(FileNotFoundError):
                    real.with_name(f"{real.name}{end}").rename(aside)
                    moved.append((real.with_name(f"{real.name}{end}"), aside))
        for draft, real in ready:
            draft.rename(real)
            moved.append((draft, real))
        for folder in {real.parent for _, real in ready}:
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    except OSError as error:
        for before, after in reversed(moved):
            after.rename(before)
        raise BackupError(f"the stores cannot be replaced: {error}; everything is as it was") from None


def _transfer(
    source: Any, target: BinaryIO | Any, advance: Callable[[int], None], most: int | None = None
) -> tuple[int, str]:
    """Copy a stream, `most` bytes and one more at most; returns its size and its SHA-256."""
    digest, size = hashlib.sha256(), 0
    while (most is None or size <= most) and (chunk := source.read(CHUNK)):
        digest.update(chunk)
        target.write(chunk)
        size += len(chunk)
        advance(len(chunk))
    return size, digest.hexdigest()


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
