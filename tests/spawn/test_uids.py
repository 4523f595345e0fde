"""One user id per instance, on the whole host."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.spawn.pool import FIRST_UID, LAST_UID
from controlplane.spawn.uids import UidPool, UidsExhausted, open_uid_pool
from tests.spawn.children import LIFE_S

HOLDER = """
import sys
from pathlib import Path
from controlplane.spawn.uids import open_uid_pool
with open_uid_pool(Path(sys.argv[1])) as pool:
    print(pool.claim(int(sys.argv[2])), flush=True)
    sys.stdin.read()
"""


def holder(folder: Path, preferred: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(preferred)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.needs("root")
def test_two_control_planes_never_share_a_user_and_death_gives_it_back(tmp_path: Path) -> None:
    uid = LAST_UID
    other = holder(tmp_path, uid)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == f"{uid}\n"
        with open_uid_pool(tmp_path) as pool:
            mine = pool.claim(uid)
            assert mine is not None
            assert mine != uid
            assert FIRST_UID <= mine <= LAST_UID
            other.kill()
            other.wait(10)
            assert pool.claim(uid) == uid
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
        assert other.stdin is not None
        other.stdin.close()


@pytest.mark.needs("root")
def test_a_claim_lasts_until_its_release_and_whoever_keeps_the_file_open_keeps_it(tmp_path: Path) -> None:
    with open_uid_pool(tmp_path) as second:
        with open_uid_pool(tmp_path) as first:
            uid = first.claim(LAST_UID)
            assert uid == LAST_UID
            assert first.claim(uid) != uid
            (fd,) = first.held_fds
            kept = os.dup(fd)  # as the spawner does
        assert second.claim(uid) != uid
        os.close(kept)
        assert second.claim(uid) == uid
        second.release(uid)
        second.release(uid)
        with open_uid_pool(tmp_path) as third:
            assert third.claim(uid) == uid


@pytest.mark.needs("root")
def test_a_user_that_is_an_account_or_runs_something_is_left_alone(tmp_path: Path, uids: UidPool) -> None:
    running = uids.claim()
    assert running is not None
    process = subprocess.Popen(["/bin/sleep", str(LIFE_S)], user=running, group=running)
    try:
        with open_uid_pool(tmp_path) as pool:
            assert pool.claim(running) != running
            assert pool.claim(1) != 1, "not of the range"
            assert all(pool.claim(entry.pw_uid) != entry.pw_uid for entry in pwd.getpwall()[:5])
    finally:
        process.kill()
        process.wait()


@pytest.mark.needs("root")
def test_a_range_that_is_used_up_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.spawn.uids.COUNT", 3)
    with open_uid_pool(tmp_path) as pool:
        claimed = {pool.claim() for _ in range(3)}
        assert len(claimed) == 3
        with pytest.raises(UidsExhausted, match=r"user ids .* are in use"):
            pool.claim()
        pool.release(max(claimed, key=lambda uid: uid or 0))
        assert pool.claim() == max(claimed, key=lambda uid: uid or 0)


@pytest.mark.needs("root")
def test_claims_are_kept_where_only_root_may_write(tmp_path: Path) -> None:
    theirs, link, file, ours = (tmp_path / name for name in ("theirs", "link", "file", "ours"))
    theirs.mkdir()
    os.chown(theirs, 54321, 54321)
    link.symlink_to(tmp_path)
    file.write_text("")
    with open_uid_pool(theirs, link, file, ours) as pool:
        assert pool.claim() is not None
    assert (ours / "uids").exists()
    assert list(theirs.iterdir()) == []
    with pytest.raises(OSError, match="one of them must be writable"), open_uid_pool(theirs, link):
        pytest.fail("opened")


@pytest.mark.needs("plain_user")
def test_there_is_nothing_to_claim_for_a_plain_user(tmp_path: Path) -> None:
    with open_uid_pool(tmp_path / "none") as pool:
        assert pool.claim() is None
        assert pool.claim(FIRST_UID) is None
        assert pool.held_fds == ()
        pool.release(None)
    assert not (tmp_path / "none").exists()
