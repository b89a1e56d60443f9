"""A run directory: one study's files, its manifest and its log.

Files are written atomically (`atomic_writing`). manifest.json records how the run was made (versions, device,
seeds, hashes, git revision), which stages are done, how long each took, which files it wrote, and how often a
test split was read. A stage is done if the manifest says so and its files still have the recorded hashes.
This mark is written last, so a crash inside a stage only means that the stage runs again.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from workbench.errors import UserError
from workbench.runs.atomic_writing import TEMPORARY, writable_directory
from workbench.runs.run_files import read_run_file, read_timings, write_run_file
from workbench.runs.safe_reading import file_hash, read_text
from workbench.schema import RunManifest, StageRecord, TimingsFile

PACKAGES = (
    "persona-workbench",
    "torch",
    "transformers",
    "transformer-lens",
    "sae-lens",
    "numpy",
    "safetensors",
    "pandas",
)


@dataclass(frozen=True)
class RunDirectory:
    """A directory with all files of one run of a study.

    All state is on the disk, so two objects with the same path are the same run.

    Attributes:
        path: The directory.
        made: Directories that `create` made for the run, the innermost first; None for a run that existed
            before.
    """

    path: Path
    made: tuple[Path, ...] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def create(cls, out: str | Path, resume: bool = False) -> RunDirectory:
        """Make a new run directory, or open an existing run to resume it.

        Args:
            out: The directory.
            resume: Whether a run that is already in the directory is opened.

        Raises:
            UserError: The directory is not empty and `resume` is False, its content is not a run of this
                version, or it cannot be written to.
        """
        missing = _missing(out)
        path = writable_directory(out)
        try:
            occupied = sorted(entry.name for entry in path.iterdir() if not _is_debris(entry))
        except OSError as error:
            raise UserError(f"cannot write to {out}: {error.strerror or error}") from error
        if occupied and not resume:
            raise UserError(
                f"{out} is not empty (it holds {occupied[0]}): choose another directory, or resume the run in it"
            )
        run = cls(path, None if occupied else missing)
        if occupied:
            run.manifest()
        run._sweep()
        if not occupied:
            run._begin()
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Open an existing run directory to read from it; UserError if it is none, or of another version."""
        run = cls(Path(path).expanduser().absolute())
        if not run.path.is_dir():
            raise UserError(
                f"{path}: expected a run directory, found {'a file' if run.path.exists() else 'nothing'}"
            )
        run.manifest()
        return run

    @classmethod
    def next_numbered(cls, root: str | Path, stem: str) -> RunDirectory:
        """Make a new run at root/stem-001, root/stem-002 and so on.

        The number is one more than the highest that exists, also if two processes do this at once.

        Args:
            root: Directory of the runs.
            stem: Name before the number: letters, digits, '_', '.' and '-', the first a letter or digit.

        Raises:
            UserError: The stem has other characters, or the directory cannot be written to.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", stem):
            raise UserError(
                f"expected a run's name of letters, digits, '_', '.' and '-', the first no sign, found {stem!r}"
            )
        base, missing = Path(root).expanduser().absolute(), _missing(root)
        try:
            base.mkdir(parents=True, exist_ok=True)
            number = max((_number(entry.name, stem) for entry in base.iterdir()), default=0) + 1
            while True:
                with contextlib.suppress(FileExistsError):
                    (base / f"{stem}-{number:03d}").mkdir()
                    break
                number += 1
        except OSError as error:
            raise UserError(f"cannot write to {root}: {error.strerror or error}") from error
        path = base / f"{stem}-{number:03d}"
        return replace(cls.create(path), made=(path, *missing))

    def discard_if_unused(self) -> None:
        """Remove the files and directories that `create` made, if no stage of the study was begun.

        A study that is refused because of its settings thus leaves no files. A run that existed before is not
        changed, and directories that contain other files are not removed.
        """
        if self.made is None:
            return
        starters = {"manifest.json", "study.yaml", "log.jsonl", "progress.json"}
        found = list(self.path.iterdir())
        if all(entry.name in starters or _is_debris(entry) for entry in found) and not self.manifest().stages:
            for entry in found:
                entry.unlink()
            with contextlib.suppress(OSError):  # not empty if another run is in it
                for directory in self.made:
                    directory.rmdir()

    def file(self, name: str) -> Path:
        """Return the path of a file of the run, and make its directory.

        Args:
            name: Path inside the run directory.

        Raises:
            UserError: The name leads out of the run directory, or its directory cannot be made.
        """
        path = (self.path / name).resolve()
        if not path.is_relative_to(self.path.resolve()) or path == self.path.resolve():
            raise UserError(f"{name!r} leaves the run directory {self.path}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {path.parent}: {error.strerror or error}") from error
        return path

    def manifest(self) -> RunManifest:
        """Read the run's manifest.json, which records versions, seeds, hashes and the completed stages.

        Raises:
            UserError: The manifest is missing, damaged or of another version, or has wrong fields.
        """
        path = self.path / "manifest.json"
        if not path.is_file():
            raise UserError(f"{self.path} is no run directory: it has no manifest.json")
        return read_run_file(path, RunManifest)

    def note(
        self,
        device: str | None = None,
        seeds: Mapping[str, int] | None = None,
        hashes: Mapping[str, str] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        """Record device, seeds, hashes or notes in the run's manifest.json.

        Values of the same name are replaced.

        Args:
            device: Device of the run; None keeps the recorded one.
            seeds: Seeds by name.
            hashes: Hashes of models and data by name.
            notes: Values that were chosen during the run and are used again if it is resumed, such as batch
                sizes.
        """
        old = self.manifest()
        self._save(
            old.model_copy(
                update={
                    "device": device or old.device,
                    "seeds": {**old.seeds, **(seeds or {})},
                    "hashes": {**old.hashes, **(hashes or {})},
                    "notes": {**old.notes, **(notes or {})},
                }
            )
        )

    def done(self, stage: str) -> bool:
        """Return whether a stage of the study (such as its search) was completed.

        The files of a completed stage must be unchanged.

        Raises:
            UserError: A file of the completed stage is missing or was changed.
        """
        entry = self.manifest().stages.get(stage)
        for name, expected in (entry.files if entry else {}).items():
            path = self.file(name)
            if not path.is_file():
                raise UserError(f"{path}: stage {stage!r} is done, but this file of it is gone")
            if file_hash(path) != expected:
                raise UserError(
                    f"{path}: changed since stage {stage!r} wrote it; remove the run, or begin a new one"
                )
        return entry is not None

    def mark_done(
        self,
        stage: str,
        seconds: float,
        files: Sequence[str] = (),
        flops: float | None = None,
        memory_mb: float | None = None,
    ) -> None:
        """Record in manifest.json that a stage of the study was completed.

        Args:
            stage: Name of the stage.
            seconds: Wall-clock time.
            files: Files that it wrote, as paths inside the run; their hashes are recorded.
            flops: The model's FLOPs; None if they were not counted.
            memory_mb: Peak memory of the process that computed it; None: this process.
        """
        old, hashes = self.manifest(), {name: file_hash(self.file(name)) for name in files}
        memory, versions = peak_memory_mb() if memory_mb is None else memory_mb, own_versions()
        entry = StageRecord(
            seconds=seconds,
            finished=_now(),
            peak_memory_mb=memory,
            flops=flops,
            files=hashes,
            versions=versions,
        )
        self._save(old.model_copy(update={"stages": {**old.stages, stage: entry}}))

    def sort_stages(self, order: Sequence[str]) -> None:
        """Sort the manifest's entries of the given stages into the given order.

        Stages that are computed by several processes at the same time end in any order. Entries of other
        stages keep their places.
        """
        old = self.manifest()
        sorted_names = iter([name for name in order if name in old.stages])
        names = [next(sorted_names) if name in order else name for name in old.stages]
        self._save(old.model_copy(update={"stages": {name: old.stages[name] for name in names}}))

    @contextlib.contextmanager
    def stage(
        self, name: str, files: Sequence[str] = (), counted: Callable[[], float] | None = None
    ) -> Iterator[None]:
        """Time a stage of the study, and record it as completed when the `with` block ends without an error.

        Args:
            name: Name of the stage.
            files: Files that it writes, as paths inside the run.
            counted: Function that returns the number of FLOPs so far; its increase during the stage is
                recorded.
        """
        self.log("begin", {"stage": name})
        reset_peak_memory()
        start, before = time.perf_counter(), counted() if counted else 0.0
        yield
        seconds = time.perf_counter() - start
        self.mark_done(name, seconds, files, counted() - before if counted else None)
        self.log("done", {"stage": name, "seconds": round(seconds, 3)})

    def note_times(self, times: TimingsFile) -> None:
        """Add wall-clock times to the run's timings.json; entries of the same name are replaced.

        The manifest records no hash of this file, so it may change after a stage is completed.
        """
        old = read_timings(self.path)
        searches, conditions = {**old.searches, **times.searches}, {**old.conditions, **times.conditions}
        merged = TimingsFile(
            searches=searches, conditions=conditions, estimators={**old.estimators, **times.estimators}
        )
        write_run_file(self.file("timings.json"), merged)

    def count_test_read(self) -> int:
        """Record in manifest.json that a test split was read once more; return the number of times so far."""
        old = self.manifest()
        self._save(old.model_copy(update={"test_reads": old.test_reads + 1}))
        self.log("test split read", {"count": old.test_reads + 1})
        return old.test_reads + 1

    def log(self, event: str, fields: Mapping[str, Any] | None = None) -> None:
        """Append one line to log.jsonl: time (UTC), event, fields.

        A line that a crash cut off is ended first.

        Args:
            event: What happened.
            fields: More entries of the line.
        """
        line = (
            json.dumps({"time": _now(), "event": event, **(fields or {})}, ensure_ascii=False, default=str)
            + "\n"
        )
        path = self.path / "log.jsonl"
        try:
            with os.fdopen(_opened_here(path, os.O_APPEND), "ab+") as file:
                cut_off = file.tell() > 0 and _last_byte(path) != b"\n"
                file.write((b"\n" if cut_off else b"") + line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error

    def read_log(self) -> list[dict[str, Any]]:
        """Return the entries of log.jsonl; a line that a crash cut off is left out."""
        path = self.path / "log.jsonl"
        entries = []
        for line in read_text(path).split("\n") if path.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                entries.append(json.loads(line))
        return entries

    @contextlib.contextmanager
    def lock(self, patience: float = 1.0) -> Iterator[None]:
        """Lock the run for this process while the `with` block runs; the lock ends with the process.

        Args:
            patience: Seconds to wait for another process that holds the lock (`is_held` holds it for a
                moment).

        Raises:
            UserError: Another process holds the lock for longer.
        """
        end = time.monotonic() + patience
        try:
            descriptor = _opened_here(self.path / ".lock")
        except OSError as error:
            raise UserError(f"cannot write {self.path / '.lock'}: {error.strerror or error}") from error
        with _closing(descriptor):
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if time.monotonic() >= end:
                        raise UserError(
                            f"{self.path} is in use: another process writes to this run"
                        ) from error
                    time.sleep(0.05)
            yield

    def is_held(self) -> bool:
        """Whether a process is writing to the run directory now.

        A lock file that cannot be opened counts as yes.
        """
        try:
            with self.lock(patience=0.0):
                return False
        except UserError:
            return True

    def _begin(self) -> None:
        versions = {name: version for name, version in own_versions().items() if name != "git"}
        self._save(RunManifest(created=_now(), versions=versions, git=git_revision()))

    def other_versions(self) -> list[str]:
        """List versions of packages or code that differ between finished stages and this process.

        Returns:
            One line for each package, or for "git" (the checkout's commit).
        """
        manifest, now = self.manifest(), own_versions()
        found: dict[tuple[str, str], list[str]] = {}
        for stage, record in manifest.stages.items():
            made = record.versions or {**manifest.versions, "git": manifest.git or "no checkout"}
            for name in (name for name in now if made.get(name, now[name]) != now[name]):
                found.setdefault((name, made[name]), []).append(stage)
        return [
            f"{name} was {old} when {', '.join(stages)} ended; it is {now[name]} now"
            for (name, old), stages in found.items()
        ]

    def _save(self, manifest: RunManifest) -> None:
        write_run_file(self.path / "manifest.json", manifest)

    def _sweep(self) -> None:
        """Remove the temporary files that a crash left."""
        for path in self.path.rglob(f".*{TEMPORARY}"):
            with contextlib.suppress(OSError):  # a directory of that name is not a leftover
                path.unlink()


@cache
def own_versions() -> dict[str, str]:
    """Return the versions of Python, of the packages that affect results, and of the workbench's code.

    The last is the checkout's commit under the name "git".
    """
    packages = {name: _version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **packages, "git": git_revision() or "no checkout"}


@cache
def git_revision() -> str | None:
    """Return the commit of the workbench's own checkout, with "+changes" if tracked files differ from it.

    None if the workbench is not in a checkout.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        revision = _git(root, "rev-parse", "HEAD")
        return revision + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(root), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return result.stdout.strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _number(name: str, stem: str) -> int:
    match = re.fullmatch(re.escape(stem) + r"-(\d{1,9})", name)
    return int(match[1]) if match else 0


def _missing(path: str | Path) -> tuple[Path, ...]:
    """List the directory and its parents that do not exist, the innermost first."""
    place = Path(path).expanduser().absolute()
    return tuple(
        one for one in (place, *place.parents) if not os.path.exists(one)
    )  # exists() is also False without permission to look


def _is_debris(entry: Path) -> bool:
    """Whether an entry is what a crash or a lock may leave in a directory without a run."""
    return entry.name == ".lock" or (entry.name.startswith(".") and entry.name.endswith(TEMPORARY))


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


def peak_memory_mb() -> float:
    """Return the peak memory of this process in MB, since the last `reset_peak_memory` or since its start."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1e3, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)  # kB; on macOS bytes


def reset_peak_memory() -> None:
    """Reset the peak memory that Linux reports for this process, to measure it from now on.

    Memory that was freed is first returned to the system, if the allocator can do so. On other systems
    nothing happens. (Linux: write 5 to /proc/self/clear_refs.)
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _opened_here(path: Path, flags: int = 0) -> int:
    """Open a file of the run for writing, and make it if it is missing; OSError for a link."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o666)


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    """Close a descriptor at the end of the `with` block; a file object would not work for a pipe."""
    try:
        yield
    finally:
        os.close(descriptor)
