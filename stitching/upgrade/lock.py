"""One run at a time: a lock file with its owner and a heartbeat."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...aligners.errors import RefusedError

__all__ = ["alone", "held", "locked"]

BEAT = 5.0
STALE = 60.0  # seconds without a heartbeat after which the owner, on another machine, is taken for dead


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock ``name`` in ``folder``, "whole" or "shard-I-of-N"; refused while a run that clashes is alive.

    Shards of one number go side by side, nothing else does.

    The owner touches the file every five seconds. A lock is dead where its process is gone (same machine) or has not
    touched it for a minute (another one), and is then taken over. Raises `RefusedError` with the owner.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.lock"
    with (folder / "guard").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # only while looking: two runs must not both find the lock free
        for each in folder.glob("*.lock"):
            if each != path and shards(each) == shards(path) != "whole":
                continue
            owner = held(each)
            if owner is not None:
                raise RefusedError(
                    f"{each}: another run of this plan is at work: process {owner['pid']} on {owner['host']}, last "
                    f"sign of life {owner['age']:.0f} s ago. Wait for it, or stop it; a lock whose owner died is taken "
                    "over by itself."
                )
        path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "began": began(os.getpid())}))
    stop = threading.Event()
    heart = threading.Thread(target=beat, args=(path, stop), daemon=True)
    heart.start()
    try:
        yield
    finally:
        stop.set()
        heart.join()
        path.unlink(missing_ok=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time, for what shards have in common: making the new gallery ready, and finishing it."""
    with (folder / "alone").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def shards(path: Path) -> str:
    """How many shards the run with this lock is one of."""
    return path.stem.rpartition("-of-")[2]


def beat(path: Path, stop: threading.Event) -> None:
    """Touch the lock until told to stop."""
    while not stop.wait(BEAT):
        try:
            os.utime(path)
        except FileNotFoundError:
            return


def held(path: Path) -> dict[str, Any] | None:
    """The living owner of a lock, with the ``age`` of its last heartbeat; None where nobody holds it."""
    try:
        owner: dict[str, Any] = json.loads(path.read_text())
        age = time.time() - path.stat().st_mtime
    except (FileNotFoundError, ValueError):
        return None
    here = owner["host"] == socket.gethostname()
    alive = began(owner["pid"]) == owner["began"] if here else age < STALE
    return {**owner, "age": max(age, 0.0)} if alive else None


def began(pid: int) -> str | None:
    """When a process of this machine began, which tells it from a later one of the same number; None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)  # a system without /proc
        except OSError:
            return None
        return "alive"
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]
