"""Run directories: files are whole or absent, what is read is checked, and a run knows how far it is."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import UserError
from workbench.runs import (
    RunDirectory,
    finite,
    read_json,
    read_parquet,
    read_safetensors,
    read_text,
    read_yaml,
    resolved,
    write_bytes,
    write_json,
    write_parquet,
    write_safetensors,
    write_text,
)
from workbench.runs.atomic_writing import POINTS
from workbench.study.progress_file import ProgressRecorder

KILLED_CHILD = """
import os, signal, sys
from workbench.runs import atomic_writing as writing
point, path, new = sys.argv[1:4]
writing.reached = lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == point else None
writing.write_text(path, new)
"""


@pytest.mark.parametrize(
    ("point", "old"), [*((point, "the old text\n") for point in POINTS), ("synced", None), ("renamed", None)]
)
def test_a_process_killed_at_any_point_leaves_the_old_or_the_new_file_whole(
    tmp_path: Path, point: str, old: str | None
) -> None:
    path, new = tmp_path / "frontier.json", "the new text, longer than the old one\n" * 1000
    if old is not None:
        path.write_text(old)
    child = subprocess.run([sys.executable, "-c", KILLED_CHILD, point, str(path), new], timeout=60)
    assert child.returncode == -signal.SIGKILL, "the child was to die at the named point"
    found = path.read_text() if path.exists() else None
    assert found == (new if point == "renamed" else old)
    assert [p.name for p in tmp_path.glob("frontier.json*")] == (
        ["frontier.json"] if found is not None else []
    )


def test_a_run_killed_inside_a_stage_resumes_without_its_debris_and_does_the_stage_again(
    tmp_path: Path,
) -> None:
    code = """
import os, signal, sys
from workbench.runs import RunDirectory, write_text
from workbench.runs import atomic_writing as writing
run = RunDirectory.create(sys.argv[1])
with run.stage("directions", ["direction.json"]):
    write_text(run.file("direction.json"), "{}")
with run.stage("search", ["search/frontier.json"]):
    writing.reached = lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == "synced" else None
    write_text(run.file("search/frontier.json"), "{}")
"""
    assert (
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], timeout=60).returncode
        == -signal.SIGKILL
    )
    assert list((tmp_path / "run" / "search").iterdir()), "the kill leaves a temporary file"
    run = RunDirectory.create(tmp_path / "run", resume=True)
    assert run.done("directions") and not run.done("search")
    assert list((run.path / "search").iterdir()) == []
    assert [entry["event"] for entry in run.read_log()] == ["begin", "done", "begin"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def full_disk(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(UserError, match=r"cannot write .*a\.json: No space left"):
        write_json(path, {"x": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"] and read_json(path) == {"x": 1}


def test_a_reader_beside_a_writer_never_sees_half_a_file(tmp_path: Path) -> None:
    path, seen, stop = tmp_path / "state", set(), threading.Event()
    versions = [bytes([65 + i]) * 200_000 for i in range(6)]
    write_bytes(path, versions[0])

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(5):
        for version in versions:
            write_bytes(path, version)
    stop.set()
    reader.join()
    assert seen <= set(versions) and len(seen) > 1


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the system counts one peak for the whole process"
)
def test_what_an_earlier_stage_freed_is_not_counted_in_the_next(tmp_path):
    """200 MB in pieces of 100 kB stay with glibc's allocator when they are freed, as long as the last piece is alive."""
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("this C library gives freed memory back by itself")
    run = RunDirectory.create(tmp_path / "run")
    with run.stage("large"):
        pieces = [b"\x01" * 100_000 for _ in range(2000)]
        last = pieces[-1]
        del pieces
    with run.stage("small"):
        assert len(last) == 100_000
    large, small = (run.manifest().stages[name].peak_memory_mb for name in ("large", "small"))
    assert large is not None and small is not None and large - small > 150


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the system counts one peak for the whole process"
)
def test_the_peak_memory_of_a_stage_is_its_own(tmp_path: Path) -> None:
    """300 MB that one stage held are not in the peak of the next."""
    run = RunDirectory.create(tmp_path / "run")
    with run.stage("large"):
        held = bytearray(os.urandom(1 << 20)) * 300
        assert len(held) > 3e8
        del held
    with run.stage("small"):
        pass
    large, small = (run.manifest().stages[name].peak_memory_mb for name in ("large", "small"))
    assert large is not None and small is not None and 280 < large - small < 700


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_json_round_trip_and_what_it_refuses(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"schema": 1, "rate": np.float64(0.5), "n": np.int64(3), "v": np.arange(2), "text": "ü"})
    assert read_json(path, schema=1) == {"schema": 1, "rate": 0.5, "n": 3, "v": [0, 1], "text": "ü"}
    with pytest.raises(UserError, match="expected schema 2, found 1"):
        read_json(path, schema=2)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"rate": float("nan")})
    assert read_json(path)["n"] == 3, "a refused value leaves the old file"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"schema": 1, "a": [1, 2', r"line 1, column \d+: expected JSON"),
        (b"", "line 1, column 1: expected JSON"),
        (b'{"schema": true}', "expected schema 1, found True"),
        (b"[1]", "expected schema 1, found None"),
        (b'{"schema": 1, "a": NaN}', "found NaN"),
        (b'{"schema": 1}\n\xff', r"line 2: expected UTF-8, found the byte 0xff"),
        (b"[" * 100_000, "expected JSON|nested too deeply"),
    ],
)
def test_half_written_or_edited_json_is_one_clear_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read_json(path, schema=1)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_directories_and_large_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a file, found nothing"):
        read_json(tmp_path / "no.json")
    with pytest.raises(UserError, match="expected a file, found a directory"):
        read_text(tmp_path)
    (tmp_path / "large").write_bytes(b"x" * 2_000_000)
    with pytest.raises(UserError, match=r"expected at most 1 MiB, found 1\.9"):
        read_text(tmp_path / "large", limit=1 << 20)


def test_parquet_round_trip_and_missing_columns(tmp_path: Path) -> None:
    path, frame = (
        tmp_path / "a.parquet",
        pd.DataFrame({"condition": ["none", "resga"], "log_odds": [0.5, -1.25]}),
    )
    write_parquet(path, frame)
    pd.testing.assert_frame_equal(read_parquet(path, ["condition"]), frame)
    with pytest.raises(UserError, match="expected the columns p, found condition, log_odds"):
        read_parquet(path, ["p"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="not a whole Parquet file"):
        read_parquet(path)


# -- safetensors ------------------------------------------------------------------------------------------------------


def test_tensors_are_written_as_the_format_s_own_library_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    vector = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    write_safetensors(path, {"vector": vector.T, "n": np.arange(3)}, {"persona": "sycophancy"})
    foreign = safetensors.numpy.load_file(path)
    np.testing.assert_array_equal(foreign["vector"], vector.T.numpy())
    tensors, metadata = read_safetensors(path, {"vector": (4, None)})
    torch.testing.assert_close(tensors["vector"], vector.T)
    assert metadata == {"persona": "sycophancy"} and tensors["n"].tolist() == [0, 1, 2]


def _raw(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"abc", "found only 3 bytes"),
        (pickle.dumps({"vector": [1.0]}), "a pickle"),
        (struct.pack("<Q", 10**15) + b"{}", "its header should have 10+ bytes, 2 are there"),
        (struct.pack("<Q", 3) + b"{a}", "its header is no JSON table"),
        (_raw([1]), "no table of tensors"),
        (_raw({"__metadata__": {"a": 1}}), "no table of tensors"),
        (
            _raw({"v": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}),
            "should have 8 bytes, 0 are there",
        ),
        (
            _raw({"v": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
            "does not fill the bytes",
        ),
        (_raw({"v": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, bytes(8)), "expected a shape"),
        (
            _raw({"v": {"dtype": "F32", "shape": [2], "data_offsets": [0, True]}}, bytes(8)),
            "expected a shape",
        ),
        (_raw({"v": {"dtype": "X9", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)), "unknown dtype 'X9'"),
        (_raw({"v": {"dtype": "F32", "shape": [2]}}, bytes(8)), "expected the fields"),
        (
            _raw({"v": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
            "gap or overlap at 0",
        ),
        (
            _raw({"v": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(8)),
            "should have 4 bytes",
        ),
        (
            _raw({"v": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(4) + b"\0\0\xc0\x7f"),
            "not finite",
        ),
        (
            _raw({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
            "expected a tensor 'v', found w",
        ),
        (
            _raw({"v": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
            r"expected shape \[2\], found",
        ),
    ],
)
def test_tensor_files_that_are_broken_or_something_else_are_refused(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read_safetensors(path, {"v": (2,)})
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.none() | st.integers(0, 10_000))
def test_a_damaged_tensor_file_is_read_whole_or_refused_in_words(
    tmp_path: Path, position: int, byte: int, cut: int | None
) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"v": torch.arange(6.0).reshape(2, 3), "w": torch.ones(2)}, {"a": "b"})
    data = bytearray(path.read_bytes())
    data[position % len(data)] = byte
    path.write_bytes(bytes(data[: cut % (len(data) + 1)]) if cut is not None else bytes(data))
    try:
        tensors, metadata = read_safetensors(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(bool(torch.isfinite(t).all()) for t in tensors.values()) and isinstance(metadata, dict)


# -- the directory ----------------------------------------------------------------------------------------------------


def test_a_new_run_says_with_what_it_was_made(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "a place with spaces" / "run")
    run.note(device="cpu", seeds={"study": 3}, hashes={"model": "ab"})
    run.note(hashes={"data": "cd"}, notes={"chunk": 64})
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["schema"] == 1 and manifest["versions"]["torch"] == str(torch.__version__)
    assert (manifest["device"], manifest["seeds"]) == ("cpu", {"study": 3})
    assert manifest["hashes"] == {"model": "ab", "data": "cd"} and manifest["notes"] == {"chunk": 64}


def test_a_directory_that_holds_something_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"is not empty \(it holds thesis.tex\)"):
        RunDirectory.create(tmp_path)
    with pytest.raises(UserError, match=r"no run directory: it has no manifest\.json"):
        RunDirectory.create(tmp_path, resume=True)
    with pytest.raises(UserError, match="expected a directory to write to, found a file"):
        RunDirectory.create(tmp_path / "thesis.tex")
    with pytest.raises(UserError, match="cannot write to"):
        RunDirectory.create(tmp_path / "thesis.tex" / "below")
    with pytest.raises(UserError, match="expected a run directory, found nothing"):
        RunDirectory.open(tmp_path / "nothing")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # nothing is unwritable for root: be nobody for a moment
    try:
        with pytest.raises(UserError, match=r"cannot write to .*: Permission denied"):
            RunDirectory.create(tmp_path / "run")
        with pytest.raises(UserError, match=r"cannot write to .*: Permission denied"):
            RunDirectory.next_numbered(tmp_path / "runs", "demo")
        with pytest.raises(UserError, match=r"cannot write .*: Permission denied"):
            write_text(tmp_path / "a", "x")
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "expected schema 1, found 2"),
        ({"test_reads": -1}, "field test_reads"),
        ({"stages": {"a": {"seconds": "long"}}}, r"field stages\.a\.seconds"),
        ({"owner": "me"}, "field owner"),
    ],
)
def test_a_manifest_of_another_version_or_edited_is_refused(
    tmp_path: Path, change: dict, message: str
) -> None:
    run = RunDirectory.create(tmp_path / "run")
    path = run.path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    for use in (
        run.manifest,
        lambda: RunDirectory.open(run.path),
        lambda: RunDirectory.create(run.path, resume=True),
    ):
        with pytest.raises(UserError, match=message):
            use()


def test_a_finished_stage_is_known_again_and_a_changed_file_of_it_is_noticed(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    with run.stage("directions", ["search/direction.json"]):
        write_json(run.file("search/direction.json"), {"auc": 0.9})
    again = RunDirectory.create(run.path, resume=True)
    assert again.done("directions") and again.manifest().stages["directions"].seconds >= 0
    run.file("search/direction.json").write_text('{"auc": 1.0}')
    with pytest.raises(UserError, match=r"direction\.json: changed since stage 'directions' wrote it"):
        again.done("directions")
    run.file("search/direction.json").unlink()
    with pytest.raises(UserError, match="this file of it is gone"):
        again.done("directions")


def test_a_stage_that_fails_or_leaves_no_file_is_not_done(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), run.stage("search"):
        raise ZeroDivisionError
    with pytest.raises(UserError, match="found nothing"), run.stage("report", ["report.html"]):
        pass
    assert not run.done("search") and not run.done("report")


def test_test_reads_are_counted_across_openings(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    assert [run.count_test_read(), RunDirectory.open(run.path).count_test_read()] == [1, 2]
    assert run.manifest().test_reads == 2


def test_numbered_runs_go_on_from_the_highest_even_between_threads(tmp_path: Path) -> None:
    (tmp_path / "demo-007").mkdir()
    (tmp_path / "demo-x").mkdir()
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(RunDirectory.next_numbered(tmp_path, "demo").path.name))
        for _ in range(6)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(found) == [f"demo-{n:03d}" for n in range(8, 14)]
    with pytest.raises(UserError, match="expected a run's name"):
        RunDirectory.next_numbered(tmp_path, "../evil")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ".", "", "link/x"])
def test_no_file_of_a_run_lies_outside_it(tmp_path: Path, name: str) -> None:
    run = RunDirectory.create(tmp_path / "run")
    (run.path / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="leaves the run directory"):
        run.file(name)


def test_the_log_survives_a_line_that_a_crash_cut_off(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.log("first", {"x": 1})
    with (run.path / "log.jsonl").open("a") as file:
        file.write('{"event": "cut o')
    run.log("second")
    assert [entry["event"] for entry in run.read_log()] == ["first", "second"]


def test_one_process_holds_a_run_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    code = """
import sys, time
from workbench.runs import RunDirectory
with RunDirectory.open(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="is in use"), run.lock():
        pass
    child.kill()
    child.wait()
    child.stdout.close()
    with run.lock():
        pass


@given(
    st.recursive(
        st.one_of(st.floats(), st.integers(), st.text(max_size=3), st.none()),
        lambda inner: st.lists(inner, max_size=3),
    )
)
def test_finite_values_are_json_and_keep_every_number_that_json_has(value) -> None:
    kept = finite({"a": value})
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept
    if not isinstance(value, (float, list)) or (isinstance(value, float) and math.isfinite(value)):
        assert kept == {"a": value}


def test_a_small_parquet_file_that_stands_for_gigabytes_is_refused_early(tmp_path):
    pq.write_table(pa.table({"text": ["x" * 1_000_000] * 40}), tmp_path / "bomb.parquet", compression="zstd")
    rows = pa.table({"n": pa.array(np.zeros(1, dtype=np.int8))})
    assert (tmp_path / "bomb.parquet").stat().st_size < 100_000
    pq.write_table(rows, tmp_path / "small.parquet")
    assert len(read_parquet(tmp_path / "small.parquet")) == 1
    with (
        mock.patch("workbench.runs.safe_reading.LARGEST_TABLE", 1 << 24),
        pytest.raises(UserError, match="expected at most 16 MiB of values"),
    ):
        read_parquet(tmp_path / "bomb.parquet")
    with (
        mock.patch("workbench.runs.safe_reading.LARGEST_ROWS", 3),
        pytest.raises(UserError, match="expected at most 3 rows, found 40"),
    ):
        read_parquet(tmp_path / "bomb.parquet")


def test_links_that_lead_to_each_other_are_one_line(tmp_path):
    (tmp_path / "a.json").symlink_to(tmp_path / "b.json")
    (tmp_path / "b.json").symlink_to(tmp_path / "a.json")
    for read in (read_text, read_json, resolved):
        with pytest.raises(UserError) as caught:
            read(tmp_path / "a.json")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [640, 1152, 1408])
def test_a_header_whose_length_begins_as_a_pickle_does_is_read(tmp_path, length):
    """The eight bytes of the length are 80 02, 80 04 and 80 05 (hexadecimal) and zeros: the first bytes of pickles of protocol 2, 4 and 5."""
    from safetensors.torch import save

    path, tensors = tmp_path / "x.safetensors", {"vector": torch.arange(4.0)}
    short = int.from_bytes(save(tensors, {"note": ""})[:8], "little")
    data = save(tensors, {"note": "n" * (length - short)})
    assert data[:2] in (b"\x80\x02", b"\x80\x04", b"\x80\x05")
    path.write_bytes(data)
    assert torch.equal(read_safetensors(path)[0]["vector"], tensors["vector"])


def test_versions_are_recorded_per_stage_and_a_difference_is_told(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    for stage in ("directions", "search resga"):
        with run.stage(stage):
            pass
    record = run.manifest().stages["directions"]
    assert (
        record.versions["torch"] == str(torch.__version__)
        and {"python", "numpy", "git"} <= record.versions.keys()
    )
    assert run.other_versions() == []
    content = json.loads((run.path / "manifest.json").read_text())
    content["stages"]["directions"]["versions"] |= {"torch": "1.0", "git": "abc"}
    del content["stages"]["search resga"]["versions"]  # as earlier versions of the workbench left it
    content["versions"]["numpy"] = "1.1"
    (run.path / "manifest.json").write_text(json.dumps(content))
    assert run.other_versions() == [
        f"torch was 1.0 when directions ended; it is {torch.__version__} now",
        f"git was abc when directions ended; it is {record.versions['git']} now",
        f"numpy was 1.1 when search resga ended; it is {record.versions['numpy']} now",
    ]


def test_a_table_whose_text_is_no_utf8_is_one_line(tmp_path: Path) -> None:
    frame = pd.DataFrame({"question": ["a question", "another"]})
    frame.to_parquet(tmp_path / "t.parquet", compression=None)
    data = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(data.replace(b"another", b"an\xda\xffher"))
    with pytest.raises(UserError, match=r"not a whole Parquet file: .*UTF"):
        read_parquet(tmp_path / "t.parquet")


def test_links_of_a_run_are_not_followed_out_of_it(tmp_path):
    """A run of somebody else, whose lock and log are links to files of yours: neither is emptied or written to."""
    run = RunDirectory.create(tmp_path / "run")
    for name in (".lock", "log.jsonl"):
        mine = tmp_path / f"mine{name}"
        mine.write_text("mine\n")
        (run.path / name).unlink(missing_ok=True)
        (run.path / name).symlink_to(mine)
    with pytest.raises(UserError, match="cannot write"), run.lock():
        pass
    with pytest.raises(UserError, match="cannot write"):
        run.log("begin")
    assert (tmp_path / "mine.lock").read_text() == (tmp_path / "minelog.jsonl").read_text() == "mine\n"


def test_a_small_table_of_many_empty_cells_is_refused_early(tmp_path: Path) -> None:
    """A cell without a value takes a bit or nothing in Arrow, and eight bytes and more in pandas."""
    for kind, columns in ((pa.null(), 4), (pa.bool_(), 4), (pa.list_(pa.int8()), 1)):
        schema = pa.schema([(f"c{i}", kind) for i in range(columns)])
        with pq.ParquetWriter(tmp_path / "table.parquet", schema) as file:
            for _ in range(20 if columns > 1 else 10):
                file.write_table(pa.table([pa.nulls(1_000_000, kind)] * columns, schema=schema))
        assert (tmp_path / "table.parquet").stat().st_size < 1_000_000
        with pytest.raises(UserError, match="at most 1024 MiB of values"):
            read_parquet(tmp_path / "table.parquet")


def test_a_header_of_numbers_without_end_is_one_line(tmp_path: Path) -> None:
    """The product of 2,000 numbers of 4,000 digits took more than 8 processor seconds."""
    header = json.dumps({"t": {"dtype": "F32", "shape": [10**4000] * 2000, "data_offsets": [0, 4]}}).encode()
    (tmp_path / "t.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    with pytest.raises(UserError, match="expected a shape and two offsets"):
        read_safetensors(tmp_path / "t.safetensors")


@pytest.mark.parametrize("name", [".lock", ".x.tmp", "search", "progress.json"])
@pytest.mark.parametrize("kind", ["directory", "pipe", "file"])
def test_what_is_in_the_way_inside_a_run_is_passed_over_or_one_line(
    tmp_path: Path, name: str, kind: str
) -> None:
    run = RunDirectory.create(tmp_path / "run")
    place = run.path / name
    {"directory": place.mkdir, "pipe": lambda: os.mkfifo(place), "file": lambda: place.write_text("x")}[
        kind
    ]()
    with contextlib.suppress(UserError):
        again = RunDirectory.create(run.path, resume=True)
        with again.lock():
            again.file("search/resga.json")
            ProgressRecorder(again).close()
    assert kind != "directory" or place.is_dir()


@pytest.mark.parametrize(("waits", "message"), [(True, "that waits"), (False, "that ends nowhere")])
def test_a_file_that_waits_or_never_ends_is_one_line(
    waits: bool, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc/kmsg calls itself a regular file of no bytes, and waits for the kernel's next message."""
    pipe, stream = os.pipe(), os.open("/dev/zero", os.O_RDONLY)
    (tmp_path / "kmsg").write_bytes(b"")
    os.set_blocking(pipe[0], False)
    monkeypatch.setattr(os, "open", lambda *_, **__: pipe[0] if waits else stream)
    with pytest.raises(UserError, match=message):
        read_text(tmp_path / "kmsg", limit=1 << 20)
    monkeypatch.undo()
    for descriptor in (pipe[1], stream if waits else pipe[0]):
        os.close(descriptor)


def test_yaml_of_more_characters_than_can_be_read_in_time_is_refused(tmp_path: Path) -> None:
    """0.8 MB had taken more than 4 processor seconds."""
    path = tmp_path / "rows.yaml"
    path.write_text("- " + "\n- ".join(["a"] * 65_536))
    assert len(read_yaml(path)) == 65_536 and path.stat().st_size == 262_143
    path.write_text("- " + "\n- ".join(["a"] * 65_537))
    with pytest.raises(
        UserError,
        match=r"rows\.yaml: expected at most 262,144 characters of YAML, found 262,147: give rows as JSON Lines or CSV",
    ):
        read_yaml(path)
