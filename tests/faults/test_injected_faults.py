"""Faults at writes of a tiny run: some here, all of them in `make faults`."""

from __future__ import annotations

import pytest

from tests.faults.injected_faults import check


def test_a_full_disk_and_a_kill_at_some_writes_leave_whole_files_and_the_same_end() -> None:
    operations, injected, wrong = check(every=97, offset=11, kinds=("ENOSPC", "kill"))
    assert not wrong and injected >= 2 and operations > 60


@pytest.mark.slow
def test_every_write_fsync_and_rename_may_fail() -> None:
    operations, injected, wrong = check()
    assert not wrong and injected == 3 * operations
