"""How a CPU's threads are divided among a study's searches."""

from __future__ import annotations

from dataclasses import dataclass

#: Fraction of the machine's memory that all processes may hold.
MEMORY_FRACTION = 0.8


@dataclass(frozen=True)
class Division:
    """How the CPU threads are divided: number of search processes at a time, and threads of each process.

    Example:
        >>> Division.of(threads=8, searches=3, need=2, memory=100)
        Division(processes=3, threads=2)
        >>> Division.of(threads=8, searches=3, need=60, memory=100)
        Division(processes=1, threads=8)
    """

    processes: int
    threads: int

    @classmethod
    def of(cls, threads: int, searches: int, need: float, memory: float) -> Division:
        """Divide the CPU threads among as many search processes as searches, threads and memory allow.

        Args:
            threads: Number of torch threads.
            searches: Number of the study's searches, including finished ones, so that a resumed run has the
                same division.
            need: Memory of one process in bytes.
            memory: Memory of the machine in bytes; a fraction of it (MEMORY_FRACTION) may be used.

        Returns:
            The division; it has one process if two do not fit.
        """
        room = int(MEMORY_FRACTION * memory / need)
        processes = max(1, min(threads, searches, room))
        return cls(processes, threads // processes)
