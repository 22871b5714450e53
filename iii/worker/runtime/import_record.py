"""What the imports of a worker have looked at: the files they found, with digests, and those they looked for in vain.

The launcher loads this file as the module `iii_imports` and installs the record before the worker's script runs; the
SDK reads it there and tells the engine, which watches these files and compares them before the worker serves. Bytecode
is taken for such a file only if it was made from the very source that is read: sizes and times, by which Python itself
decides, say nothing about a file that was saved twice within a second, or copied with its times. Installed packages and
the standard library are left to Python.
"""

from __future__ import annotations

import _imp
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader, cache_from_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType
    from typing import Any

DIGEST_SIZE = 16  # bytes; as the engine hashes the files that it watches
# Paths that imports have looked for in vain: a program that tries names in a loop must not fill the memory.
MAX_MISSING = 1500
_HEADER = MAGIC_NUMBER + (3).to_bytes(4, "little")  # of bytecode that counts only for the source with its hash
_LIBRARY = os.path.dirname(os.__file__) + os.sep
_ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))
# Where nothing belongs to a project: the SDK itself, its command line and its standard workers.
_OURS = tuple(os.path.join(_ROOT, name, "") for name in ("iii", "cli", "stdlib_workers"))


class ImportRecord:
    """The record of this process. `on_missing()` is called when an import has looked for something new in vain."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}  # path, as the import found it -> digest of the source that was compiled
        self._missing: dict[str, None] = {}  # an ordered set
        # What the interpreter has loaded for itself, before the folder of the script was on its path.
        self._loaded_before = frozenset(sys.modules)
        self.on_missing: Callable[[], object] = _nothing

    def install(self) -> None:
        """Record the imports of this process from now on."""
        loader: Any = SourceFileLoader
        plain = loader.get_code
        record = self

        def get_code(self: Any, fullname: str) -> Any:
            path = os.path.abspath(self.get_filename(fullname))
            return record.load(self, path) if is_own(path) else plain(self, fullname)

        # Tracebacks leave out frames of the import system, which they know by this name.
        for function in (get_code, ImportRecord.load):
            function.__code__ = function.__code__.replace(co_filename="<frozen importlib._bootstrap_external>")
        loader.get_code = get_code
        sys.meta_path.append(self)  # asked for what none before it has found

    def note(self, path: str, source: bytes) -> None:
        """Record that this source of a file is what runs."""
        self.digests[path] = digest_of(source)

    def load(self, loader: Any, path: str) -> CodeType:
        """Return the code of a project's file, compiled from what is read now or earlier from the same."""
        source = loader.get_data(path)
        self.note(path, source)
        header = _HEADER + _imp.source_hash(_source_key(), source)
        # A loader of another kind compiles something else, and caches it elsewhere if at all.
        bytecode_path = _bytecode_path(path) if type(loader) is SourceFileLoader else None
        code = _cached_code(bytecode_path, header, path) if bytecode_path else None
        if code is None:
            code = loader.source_to_code(source, path)
            if bytecode_path and not sys.dont_write_bytecode:
                import marshal  # built in

                loader._cache_bytecode(path, bytecode_path, header + marshal.dumps(code))
        return code

    # As the import system calls any finder.
    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: object = None) -> None:  # noqa: ARG002
        """Note what would have been the module, for the import system, which has found nothing."""
        before = len(self._missing)
        for folder in sys.path if path is None else path:
            self._look_for(fullname.rpartition(".")[2], folder)
        if len(self._missing) > before:
            self.on_missing()

    def _look_for(self, name: str, folder: str, *, is_found: bool = False) -> None:
        place = os.path.join(os.path.abspath(folder), name)
        if is_own(place) and len(self._missing) < MAX_MISSING:
            # The folder alone is a package too; it is watched as such, which the separator says.
            paths = f"{place}.py", os.path.join(place, "__init__.py"), place + os.sep
            self._missing.update(dict.fromkeys(path for path in paths if not (is_found and os.path.exists(path))))

    def files(self) -> list[str]:
        """Return the files that were found, sorted."""
        loaded = map(_file_of, list(sys.modules.values()))
        extensions = {file for file in loaded if file.endswith((".so", ".pyd")) and is_own(file)}
        return sorted(filter(_is_text, extensions | self.digests.keys()))

    def missing(self) -> list[str]:
        """Return the paths where imports have found nothing, and where what they found elsewhere would come first.

        The engine takes what is there later for new. A folder of the same name that is no package, or a file that a
        longer path has brought up since, is not.
        """
        for name, module in list(sys.modules.items()):
            file = _file_of(module)
            is_pythons = file.startswith(_LIBRARY) and "-packages" not in file
            is_known = name == "__main__" or name in self._loaded_before or is_pythons or file.startswith(_OURS)
            if not file or "." in name or is_known:
                continue
            for folder in sys.path:
                if file.startswith(os.path.join(os.path.abspath(folder), "")):
                    break
                self._look_for(name, folder, is_found=True)
        return sorted(filter(_is_text, self._missing))


def is_own(path: str) -> bool:
    """Whether a file may be the project's or another that its user edits: neither installed nor of Python nor ours."""
    return not path.startswith((_LIBRARY, *_OURS)) and not any(
        part in path for part in ("site-packages", "dist-packages", f"{os.sep}.iii{os.sep}", ".zip" + os.sep)
    )


def digest_of(source: bytes) -> str:
    """Return the digest by which the engine compares contents."""
    try:
        from _blake2 import blake2b  # a tenth of the time of hashlib
    except ImportError:
        from hashlib import blake2b
    return blake2b(source, digest_size=DIGEST_SIZE).hexdigest()


def _nothing() -> None:
    """Nobody wants to know."""


def _file_of(module: object) -> str:
    # Not by `getattr`: a lazy module runs code of its own then, which imports or raises.
    try:
        file = object.__getattribute__(module, "__dict__").get("__file__")
    except AttributeError:
        return ""
    return file if isinstance(file, str) else ""


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _source_key() -> int:
    # The key with which Python itself hashes sources: it can use our bytecode, and we what it has made by hash.
    import _frozen_importlib_external as importer

    return int(getattr(importer, "_RAW_MAGIC_NUMBER", 0) or getattr(_imp, "pyc_magic_number_token", 0))


def _bytecode_path(path: str) -> str | None:
    try:
        return str(cache_from_source(path))
    except NotImplementedError:  # this interpreter caches nothing
        return None


def _cached_code(bytecode_path: str, header: bytes, path: str) -> CodeType | None:
    try:
        with open(bytecode_path, "rb") as file:
            data = file.read()
    except OSError:
        return None
    if data[: len(header)] != header:
        return None
    import marshal  # built in

    try:
        code: CodeType = marshal.loads(data[len(header) :])
    except (EOFError, ValueError, TypeError):
        return None
    _imp._fix_co_filename(code, path)  # type: ignore[attr-defined]  # the project may have been moved
    return code
