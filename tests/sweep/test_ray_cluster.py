"""A cluster that is not there is refused by name, at once; what Ray itself would wait 80 s for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from workbench.errors import UserError
from workbench.sweep import ray_cluster
from workbench.sweep.ray_cluster import check_answers, connected, start_patiently


@contextmanager
def listening(answer: bytes, hangs_up: bool = True) -> Iterator[int]:
    """A port on which a program takes one connection, says `answer`, and hangs up or stays silent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def serve() -> None:
            connection, _ = server.accept()
            kept.append(connection)
            with suppress(OSError):  # the other side may be gone
                connection.sendall(answer)
                if hangs_up:
                    connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5)
        for connection in kept:
            connection.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9\r\n"])
def test_a_port_of_another_program_is_told(answer):
    with (
        listening(answer) as port,
        pytest.raises(
            UserError, match=f"no Ray cluster at 127.0.0.1:{port}: the port is in use by another program"
        ),
    ):
        check_answers(f"127.0.0.1:{port}")


def test_a_program_that_says_nothing_is_refused_in_time(monkeypatch):
    monkeypatch.setattr(ray_cluster, "ANSWER_SECONDS", 0.3)
    began = time.monotonic()
    with listening(b"", hangs_up=False) as port, pytest.raises(UserError, match="in use by another program"):
        check_answers(f"127.0.0.1:{port}")
    assert time.monotonic() - began < 5


def test_what_begins_as_http2_does_is_left_to_ray():
    settings = bytes(3) + b"\x04" + bytes(5)
    with listening(settings) as port:
        check_answers(f"127.0.0.1:{port}")
    with listening(settings) as port:
        check_answers(f"ray://127.0.0.1:{port}")


def test_a_missing_head_is_told():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        UserError, match=f"no Ray cluster at 127.0.0.1:{port}: nothing listens there; is its head running"
    ) as caught:
        check_answers(f"127.0.0.1:{port}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["host", "host:", ":6379", "host:port", "host:0", "host:70000", "ray://", "", "\u00b2:\u00b2"]
)
def test_what_is_no_address_is_told(address):
    with pytest.raises(UserError, match="expected auto or HOST:PORT"):
        check_answers(address)


def test_a_host_without_a_name_is_told():
    with pytest.raises(UserError, match=r"no Ray cluster at no-such-host\.invalid:6379: "):
        check_answers("no-such-host.invalid:6379")
    with pytest.raises(UserError, match="no Ray cluster at "):
        check_answers("a" * 300 + ".b:6379")


def test_a_cluster_named_in_the_environment_is_used_only_when_asked_for(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    says = r"the environment variable RAY_ADDRESS names a Ray cluster \(10\.0\.0\.1:6379\)"
    with pytest.raises(UserError, match=says) as caught, connected(2, None):
        pass
    assert "\n" not in str(caught.value)


def test_a_start_that_runs_out_of_time_is_made_again_and_any_other_error_is_not():
    cleaned, answers = (
        [],
        iter(
            [
                Exception("The current node timed out during startup."),
                TimeoutError("Timeout: 2 nodes"),
                "started",
            ]
        ),
    )

    def start():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert start_patiently(start, lambda: cleaned.append(1)) == "started" and len(cleaned) == 2
    answers = iter([ValueError("no such address"), "started"])
    with pytest.raises(ValueError, match="no such address"):
        start_patiently(start, lambda: cleaned.append(1))
    answers = iter([Exception("timed out"), "started"])
    with pytest.raises(Exception, match="timed out"):
        start_patiently(start, lambda: cleaned.append(1), seconds=0)
    assert len(cleaned) == 4
