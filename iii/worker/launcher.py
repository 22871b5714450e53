"""Starts a worker's script; `launch.py` is the program around it.

Takes stdin and stdout for the protocol before user code runs, asks the kernel to end this process with its parent,
runs the script as `__main__`, and then serves on the main thread until the engine closes the wire. Imports nothing of
the project, because the script's own environment may have another `iii`.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from iii.worker.runtime.import_record import ImportRecord

_HERE = os.path.dirname(os.path.abspath(__file__))
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9

# The SDK finds this module as `iii_launcher`; it reads the descriptors of the wire and the record of the imports, and
# sets what serves the worker.
wire: tuple[int, int] | None = None
serve: Callable[[], None] | None = None
imports: ImportRecord | None = None


def main() -> None:
    """Run the worker named by the command line."""
    global wire, imports  # noqa: PLW0603 - how the SDK finds them
    parent = os.getppid()
    _prepare_path()
    if os.environ.get("III_URL") == "stdio:":
        wire = claim_wire()
    _keep_sockets()
    _die_with_parent(parent)
    if address := os.environ.get("III_DEBUG"):
        _await_debugger(address)  # with the wire claimed: the debugger's own process inherits 0, 1 and 2
    del sys.argv[0]
    try:
        if sys.argv[0] == "-m":
            import runpy  # only for -m

            del sys.argv[0]
            _add_to_path(os.getcwd())
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            imports = _record_imports()
            _run_script(os.path.abspath(sys.argv[0]), imports)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - shown as Python itself would, without our frames
        trace = error.__traceback__
        while trace and trace.tb_frame.f_globals.get("__name__") in (__name__, "runpy"):
            trace = trace.tb_next
        if isinstance(error, ModuleNotFoundError):
            where = "install it there, or name the interpreter that has it by `python` of this worker in iii.toml"
            sys.stderr.write(f"iii: {sys.executable} has no module {error.name}; {where}\n")
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        sys.stderr.flush()
        if imports is not None:
            _tell_failure(imports)
        raise SystemExit(1) from None
    if serve is not None:
        serve()


def _keep_sockets() -> None:
    for descriptor in filter(None, os.environ.get("III_LISTEN_FDS", "").split(",")):
        os.set_inheritable(int(descriptor), False)  # the sockets are this process's, not its children's


def _await_debugger(address: str) -> None:
    import debugpy  # type: ignore[import-not-found]  # the engine has checked that it is installed

    host, _, port = address.rpartition(":")
    debugpy.listen((host, int(port)))


def _prepare_path() -> None:
    # Our own folder is first on the path now, and its module names would hide others. The SDK goes to the end for a
    # script: an `iii` that the worker's environment has wins. A standard worker has our modules first: another package
    # may be called `stdlib_workers`, and the official SDK may be installed beside us.
    if sys.path and os.path.abspath(sys.path[0]) == _HERE:
        del sys.path[0]
    sdk = os.path.dirname(os.path.dirname(_HERE))
    if sys.argv[1:2] == ["-m"]:
        sys.path.insert(0, sdk)
    elif sdk not in sys.path:
        sys.path.append(sdk)


def claim_wire() -> tuple[int, int]:
    """Move stdin and stdout to private descriptors (read, write) that children do not inherit, and return them.

    Fd 1 becomes stderr and fd 0 /dev/null, so that `print`, C code and child processes cannot break the protocol. A
    forked child loses the descriptors at once. `III_WIRE_PID` tells every other child, which inherits `III_URL` too,
    who has the wire.
    """
    import fcntl  # not for a worker over WebSocket

    descriptors = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3), fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    os.environ["III_WIRE_PID"] = str(os.getpid())

    def close_in_child() -> None:
        for descriptor in descriptors:
            with suppress(OSError):  # the worker has closed it
                os.close(descriptor)

    os.register_at_fork(after_in_child=close_in_child)
    return descriptors


def _die_with_parent(parent: int) -> None:
    # `_ctypes` loads in a third of the time of `ctypes`. On other systems the end of stdin ends this process.
    if not sys.platform.startswith("linux"):
        return
    try:
        import _ctypes  # Linux only

        program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # None is the program itself
        _ctypes.call_function(_ctypes.dlsym(program, "prctl"), (_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0))
    except (ImportError, AttributeError, OSError):
        return
    if os.getppid() != parent:
        # The parent has died before the kernel was asked.
        os._exit(0)


def _record_imports() -> ImportRecord:
    from _frozen_importlib_external import SourceFileLoader  # loaded by every interpreter

    # By its file name, as `launch.py` loads this module.
    file = os.path.join(_HERE, "runtime", "import_record.py")
    module = type(sys)("iii_imports")
    module.__file__ = file
    sys.modules["iii_imports"] = module
    SourceFileLoader("iii_imports", file).exec_module(module)
    record: ImportRecord = module.ImportRecord()
    record.install()
    return record


def _tell_failure(record: ImportRecord) -> None:
    """Tell the engine what the imports of a script that has failed have looked at: its files mend it when they change.

    One write: a thread of the SDK may be writing too.
    """
    if wire is not None and os.getpid() == int(os.environ.get("III_WIRE_PID", "0")):
        import json  # only a failure pays for it

        facts = {"files": record.files(), "digests": record.digests, "missing": record.missing()}
        with suppress(OSError, ValueError):
            os.write(wire[1], json.dumps({"type": "ready", "failed": True, **facts}).encode() + b"\n")


def _add_to_path(folder: str) -> None:
    # Behind the standard library, not before it as Python does: a worker called math.py, queue.py or http.py must not
    # replace the module of that name, neither in its own process nor in the processes of the workers beside it.
    library = os.path.dirname(os.__file__)
    indexes = [index for index, entry in enumerate(sys.path) if entry.startswith(library) and "-packages" not in entry]
    sys.path.insert(max(indexes, default=-1) + 1, folder)


def _run_script(path: str, record: ImportRecord) -> None:
    # As Python does it: a script behind a link finds the modules beside its real file. Then those beside the link.
    for folder in dict.fromkeys((os.path.dirname(path), os.path.dirname(os.path.realpath(path)))):
        _add_to_path(folder)
    module = type(sys)("__main__")
    module.__dict__.update(__file__=path, __builtins__=__builtins__, __cached__=None, __spec__=None)
    sys.modules["__main__"] = module
    with open(path, "rb") as file:
        source = file.read()
    record.note(path, source)
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
