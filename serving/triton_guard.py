"""The small parent of tritonserver that never lets it outlive us.

Run as a script: ``triton_guard.py OWNER_PID STATUS_FILE SHM_PREFIX GRACE_SECONDS -- COMMAND...``. It starts
COMMAND in a session of its own and then only watches:

* SIGTERM or SIGINT: SIGINT to the server (Triton drains), SIGKILL to all of it after GRACE_SECONDS;
* SIGQUIT: SIGKILL to all of it at once;
* the owner is gone, even by SIGKILL: everything is killed at once;
* the server ends: what it left (Python stubs, shared memory) is removed, and its exit status is ours.

A death signal set from the owner itself would not do: it fires when the *thread* that started the child ends,
it does not reach the stubs, and nobody would be left to remove the shared memory. If the guard itself is
killed, the kernel kills tritonserver (PR_SET_PDEATHSIG), and the stubs end when they miss their parent.
Standard library only; it imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_WATCHED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
_OWNER_CHECK_SECONDS = 0.25


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _before_exec(guard: int) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:  # it died before the death signal was set
        os._exit(1)


def _children() -> list[int]:
    """Return our live descendants' ids that the kernel lists as our children (orphans come to us)."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(word) for word in file.read().split()]


def _kill_all(group: int) -> None:
    """SIGKILL the server's group, and whatever orphan comes to us, until nothing is left."""
    for _ in range(100):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        for child in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        while True:
            try:
                pid, _status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
        time.sleep(0.02)


def main(arguments: list[str]) -> int:
    owner, status_file, prefix, grace = int(arguments[0]), arguments[1], arguments[2], float(arguments[3])
    command = arguments[arguments.index("--") + 1 :]
    guard = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    server = subprocess.Popen(command, start_new_session=True, preexec_fn=lambda: _before_exec(guard))
    with open(status_file + ".tmp", "w") as file:
        file.write(str(server.pid))
    os.replace(status_file + ".tmp", status_file)

    deadline: float | None = None
    while server.poll() is None:
        if os.getppid() != owner or (deadline is not None and time.monotonic() > deadline):
            break
        got = signal.sigtimedwait(_WATCHED, _OWNER_CHECK_SECONDS)
        if got is None or got.si_signo == signal.SIGCHLD:
            continue
        if got.si_signo == signal.SIGQUIT:
            break
        if deadline is None:
            server.send_signal(signal.SIGINT)
            deadline = time.monotonic() + grace
    ended = server.poll()
    _kill_all(server.pid)
    for leftover in glob.glob(f"/dev/shm/{glob.escape(prefix)}*"):
        with contextlib.suppress(OSError):
            os.unlink(leftover)
    if ended is None:
        return 128 + signal.SIGKILL
    return ended if ended >= 0 else 128 - ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
