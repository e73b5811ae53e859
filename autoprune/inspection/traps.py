"""What is known to slow a search or to stop it on a machine, each with its cure."""

from __future__ import annotations

import difflib
import resource
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoprune.core.cache import CACHE_VARIABLE, cache_folder
from autoprune.core.files import reason_of, why_unwritable
from autoprune.core.processors import cpu_quota, usable_processors
from autoprune.core.redaction import redacted
from autoprune.run.text import size_text
from autoprune.workers.ray_address import AUTO, cluster_asked_for, found_cluster

VARIABLES = (
    "AUTOPRUNE_CACHE", "AUTOPRUNE_CLUSTER", "AUTOPRUNE_IMPORTS", "AUTOPRUNE_LIBRARY_LIMIT",
    "AUTOPRUNE_STORAGE", "AUTOPRUNE_STORAGE_ROOT",
)  # fmt: skip
"""Variables of the environment that a user may set. Others of that name are set by autoprune itself."""

SET_BY_US = ("AUTOPRUNE_GPU_SHARE", "AUTOPRUNE_JOBS", "AUTOPRUNE_ROOM")

LEAST_ROOM_BYTES, USUAL_ROOM_BYTES = 100_000_000, 5_000_000_000
"""On the cache's disk: what nothing can be searched with less than, and what a search may well fill."""

LEAST_SHARED_BYTES = 1_000_000_000
"""Of /dev/shm. Ray keeps what workers share there, else in files of the temporary folder, which are slow."""

LEAST_FILES = 1024
"""Files that a process may have open: Ray opens several for each worker."""

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


@dataclass(frozen=True)
class Trap:
    """Something that stops a search (`breaks`) or slows it, and what to do."""

    what: str
    cure: str
    breaks: bool = False


def traps_found(environment: Mapping[str, str]) -> list[Trap]:
    """All traps of this machine, those that break a search first.

    Args:
        environment: the variables of this process.
    """
    found = [*_places(), *_threads(environment), *_limits(), *_cluster(), *_variables(environment)]
    return sorted(found, key=lambda trap: not trap.breaks)


def _places() -> Iterator[Trap]:
    """The cache, the working folder and the temporary one: whether they can be written, and their room."""
    cache = cache_folder()
    if why := why_unwritable(cache):
        cure = f"set {CACHE_VARIABLE} to a folder that can be written, of a few gigabytes"
        yield Trap(f"the cache folder {cache} cannot be written ({why})", cure, breaks=True)
    else:
        place = cache.absolute()
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if free < USUAL_ROOM_BYTES:
            what = f"the disk of the cache folder {cache} has {size_text(free)} free"
            cure = f"make room, or set {CACHE_VARIABLE} to a folder on another disk"
            yield Trap(what, cure, breaks=free < LEAST_ROOM_BYTES)
    if why := why_unwritable(Path("runs")):
        what = f"the run folder of a search is written below {Path.cwd()}, which cannot be ({why})"
        yield Trap(what, "work in another folder, or give search -o FOLDER")
    temporary = Path(tempfile.gettempdir())
    if (free := shutil.disk_usage(temporary).free) < USUAL_ROOM_BYTES // 5:
        what = f"the temporary folder {temporary} has {size_text(free)} free"
        yield Trap(what, "make room, or set TMPDIR to another: Ray and exports write there")
    shared = Path("/dev/shm")  # nosec B108 # it is only looked at
    if shared.is_dir() and (total := shutil.disk_usage(shared).total) < LEAST_SHARED_BYTES:
        what = f"{shared} has {size_text(total)}: Ray's workers then share data through files, which is slow"
        yield Trap(what, "give the container more: docker run --shm-size=2g, or an emptyDir of medium Memory")


def _threads(environment: Mapping[str, str]) -> Iterator[Trap]:
    """Threads that wait in a loop, and more of them than there are processors."""
    policy = environment.get("OMP_WAIT_POLICY", "passive")
    if policy.lower() != "passive":
        what = f"OMP_WAIT_POLICY={policy}: threads that wait keep their processors busy"
        yield Trap(what, "unset it: autoprune sets it to passive")
    blocktime = environment.get("KMP_BLOCKTIME", "")
    if blocktime.lower() == "infinite" or (blocktime.isdecimal() and int(blocktime) > 200):
        yield Trap(f"KMP_BLOCKTIME={blocktime}: threads that wait keep their processors busy", "unset it")
    given, most = environment.get("OMP_NUM_THREADS", ""), usable_processors()
    if given.isdecimal() and int(given) > most:
        what = f"OMP_NUM_THREADS={given}, and {most} processors may be used: threads wait for each other"
        yield Trap(what, f"set it to {most} or less, or unset it")
    quota = cpu_quota()
    if quota is not None and quota.processors < 1:
        what = f"this container has {quota.processors:.2g} of a processor: milliseconds will be too high"
        yield Trap(what, "give it a whole processor more than there are workers")


def _limits() -> Iterator[Trap]:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < LEAST_FILES:
        yield Trap(f"a process may open {files} files, and Ray opens several a worker", "ulimit -n 4096")


def _cluster() -> Iterator[Trap]:
    """A Ray cluster that a search would join and that does not answer."""
    address = cluster_asked_for(None)
    if address is not None and (why := why_no_answer(address)):
        cure = "start it, or unset RAY_ADDRESS: a search then starts a Ray of its own"
        yield Trap(f"RAY_ADDRESS={redacted(address)}: {why}", cure, breaks=True)


def why_no_answer(address: str) -> str:
    """Why nothing answers at the address of a Ray cluster; "" where something does. Nothing is started."""
    try:
        where = found_cluster() if address == AUTO else address
        host, _, port = where.rpartition("//")[2].rpartition(":")
        socket.create_connection((host, int(port)), timeout=3).close()
    except Exception as error:  # Ray itself looks for `auto`
        return f"no Ray cluster answers there ({reason_of(error):.300})"
    return ""


def _variables(environment: Mapping[str, str]) -> Iterator[Trap]:
    """Variables that change what is done without being seen on a command line."""
    for name in sorted(environment):
        if name.startswith("AUTOPRUNE_") and name not in (*VARIABLES, *SET_BY_US):
            near = difflib.get_close_matches(name, VARIABLES, n=1)
            cure = f"did you mean {near[0]}?" if near else f"there are {', '.join(VARIABLES)}"
            yield Trap(f"{name} is set, and nothing reads it", cure)
    offline = [name for name in OFFLINE if environment.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]
    if offline:
        what = f"{', '.join(offline)} is set: models and data of a hub are read only where they were fetched"
        yield Trap(what, "unset it to fetch others")


def own_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a user that change what autoprune does, without secrets."""
    return {name: redacted(environment[name]) for name in VARIABLES if environment.get(name)}
