"""Connect to a Ray cluster at an address, or start a private Ray on this machine.

Ray itself waits for an address for 40 s and more, whatever is there. So the address is first tested without
Ray: does something accept a TCP connection, and does it speak HTTP/2, as every Ray head does (its SETTINGS
frame)? An address that fails is refused by name within seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from workbench.errors import UserError
from workbench.optional_packages import needs_extra
from workbench.sweep.ray_watchdog import RayWatchdog

#: Seconds in which a private Ray may start; a loaded machine needs more than Ray's own 30.
START_SECONDS = 180
#: Seconds for a connection to an address, and again for its first bytes.
ANSWER_SECONDS = 8.0
#: Seconds in which the nodes of a cluster must say what GPUs they have.
GPU_SECONDS = 60.0
#: Bytes of shared memory of a private Ray; it needs little, because tensors stay in the workers.
OBJECT_STORE = 80 << 20
#: First bytes of an HTTP/2 client: the preface and an empty SETTINGS frame.
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)


def check_answers(address: str) -> None:
    """Check quickly that a Ray head may be running at an address.

    Args:
        address: "host:port" or "ray://host:port".

    Raises:
        UserError: The host does not exist, nothing listens there, or another program does.
    """
    where = f"no Ray cluster at {address}"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise UserError(f"{where}: expected auto or HOST:PORT")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as connection:
            speaks = os.environ.get("RAY_USE_TLS", "0") == "1" or _speaks_http2(connection)
    except TimeoutError as error:
        raise UserError(f"{where}: no answer within {ANSWER_SECONDS:.0f} s") from error
    except ConnectionRefusedError as error:
        raise UserError(f"{where}: nothing listens there; is its head running?") from error
    except (OSError, UnicodeError) as error:
        raise UserError(f"{where}: {getattr(error, 'strerror', None) or error}") from error
    if not speaks:
        raise UserError(f"{where}: the port is in use by another program, which is no Ray head")


def _speaks_http2(connection: socket.socket) -> bool:
    connection.settimeout(ANSWER_SECONDS)
    found = b""
    with contextlib.suppress(OSError):  # no answer in time, or hung up
        connection.sendall(_HTTP2)
        while len(found) < 9 and (more := connection.recv(9 - len(found))):
            found += more
    return len(found) == 9 and found[3] == 4


def start_patiently(
    start: Callable[[], Any], clean: Callable[[], Any], seconds: float = START_SECONDS
) -> Any:
    """Call `start`, and call it again after each of its time-outs until `seconds` have passed.

    Ray gives a node 30 s to start, whatever the machine's load, and has no setting for it.

    Args:
        start: Function that starts Ray.
        clean: Function that removes what a failed start left.
        seconds: Time after which a time-out is raised.

    Returns:
        What `start` returns.

    Raises:
        Exception: Any error of `start` that is no time-out, or the last time-out.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return start()
        except Exception as error:  # Ray raises bare Exceptions if a node does not start
            clean()
            if time.monotonic() >= end or not any(
                words in str(error).lower() for words in ("timed out", "timeout")
            ):
                raise


def _named_head() -> str:
    """Return the address that "auto" means: a Ray head on this machine, or the one that `ray start` recorded.

    Raises ConnectionError if there is none.
    """
    from ray._private.services import get_ray_address_from_environment  # Ray has no public name for it

    return get_ray_address_from_environment("auto", None)


@contextmanager
def connected(workers: int | None, address: str | None) -> Iterator[Any]:
    """Yield Ray, connected to a cluster or to a private Ray on this machine.

    A private Ray listens on loopback only, has no dashboard and sends no usage statistics. It is stopped
    after the block. If this process is already connected to Ray, that connection is used and left as it is.

    Args:
        workers: Number of CPUs of a private Ray; None for all.
        address: Address of a cluster; None for a private Ray.

    Yields:
        The module `ray`.

    Raises:
        UserError: The cluster cannot be reached, Ray cannot start or is not installed, or RAY_ADDRESS names a
            cluster but no address is given.
    """
    named = os.environ.get("RAY_ADDRESS", "").strip()
    if address is None and named not in ("", "local"):
        raise UserError(
            f"the environment variable RAY_ADDRESS names a Ray cluster ({named}): give it as the address to use it, or unset it"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        os.environ.setdefault(
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"
        )  # on Linux too, a Ray without cluster support listens on loopback only
    with needs_extra("sweep", "a sweep on a cluster" if address else "a sweep with more than one worker"):
        import ray
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    watchdog = None if address else RayWatchdog()
    try:
        if watchdog is None:
            with _one_line(f"cluster at {address}"):
                check_answers(_named_head() if address == "auto" else str(address))
                ray.init(address, **quiet)
        else:
            here = {
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
                "object_store_memory": OBJECT_STORE,
            }
            with _one_line("here"), watchdog.marking():
                start_patiently(lambda: ray.init(num_cpus=workers, **here, **quiet), ray.shutdown)
        yield ray
    finally:
        ray.shutdown()
        if watchdog is not None:
            watchdog.close()


def gpu_memories(ray: Any, here: bool) -> list[int]:
    """Return the memory of each GPU of a cluster in bytes; empty if that of one node is not known.

    The other nodes are asked with `nvidia-smi`, which reserves no GPU.

    Args:
        ray: The module `ray`, connected.
        here: Whether this process is on a node of the cluster, whose GPUs torch knows.
    """
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    own = ray.get_runtime_context().get_node_id() if here else None
    found = [_own_gpus()] if own in nodes else []
    pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    ask = ray.remote(num_cpus=0)(node_gpus)
    calls = [
        ask.options(scheduling_strategy=pinned(node, soft=False)).remote() for node in nodes if node != own
    ]
    try:
        found += ray.get(calls, timeout=GPU_SECONDS)
    except ray.exceptions.RayError:  # a node that goes or does not answer
        return []
    return [size for sizes in found for size in sizes] if all(found) else []


def _own_gpus() -> list[int]:
    return [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]


def node_gpus() -> list[int]:
    """Return the memory in bytes of each GPU that `nvidia-smi` lists on this machine; empty without it."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return [int(size) << 20 for size in said.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    """Turn exceptions of Ray, which raises bare ones if a node does not start, into a one-line UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"no Ray {where}: {' '.join(str(error).split())}") from error
