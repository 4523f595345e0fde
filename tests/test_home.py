"""CORRAL_HOME: one holder at a time, secrets kept, nothing for others to read."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.config import Config
from controlplane.home import Home, HomeBusy, HomeUnusable, open_home, write_private

HOLDER = """
import sys
from pathlib import Path
from controlplane.config import Config
from controlplane.home import open_home
with open_home(Config(home=Path(sys.argv[1]))):
    print("open", flush=True)
    sys.stdin.read()
"""


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def config(folder: Path, **settings: object) -> Config:
    return Config(home=folder, **settings)  # type: ignore[arg-type]


def test_a_new_home_is_made_with_secrets_that_only_its_owner_reads(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "home"
    with open_home(config(folder)) as home:
        assert (mode_of(folder), mode_of(home.instances), mode_of(home.run)) == (0o711, 0o711, 0o700)
        assert {mode_of(path) for path in folder.iterdir() if path.is_file()} == {0o600}
        assert len(home.owner_id) == 32
        assert len(bytes.fromhex(home.secret_key)) == 32
        assert home.admin_token.startswith("corral_")
        assert json.loads(home.credentials.read_text()) == {"url": "http://127.0.0.1:8000", "token": home.admin_token}


def test_identity_and_secrets_stay_the_same_from_life_to_life_and_differ_from_home_to_home(tmp_path: Path) -> None:
    def secrets_of(home: Home) -> tuple[str, str, str]:
        return home.owner_id, home.secret_key, home.admin_token

    with open_home(config(tmp_path / "one")) as home:
        first = secrets_of(home)
    with open_home(config(tmp_path / "one")) as home:
        assert secrets_of(home) == first
    with open_home(config(tmp_path / "two")) as home:
        assert not set(secrets_of(home)) & set(first)


def test_secrets_that_are_set_win_and_a_set_key_is_not_written_down(tmp_path: Path) -> None:
    key, token = "k" * 40, "t" * 40
    with open_home(config(tmp_path, secret_key=key, admin_token=token)) as home:
        assert (home.secret_key, home.admin_token) == (key, token)
        assert json.loads(home.credentials.read_text())["token"] == token
    assert key not in "".join(path.read_text() for path in tmp_path.iterdir() if path.is_file())


def test_no_secret_shows_when_a_home_is_printed(tmp_path: Path) -> None:
    with open_home(config(tmp_path)) as home:
        assert home.secret_key not in repr(home)
        assert home.admin_token not in repr(home)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9000"),
        ("0.0.0.0", "http://127.0.0.1:9000"),
        ("::", "http://[::1]:9000"),
        ("corral.example", "http://corral.example:9000"),
    ],
)
def test_the_credentials_name_an_address_that_works_on_this_host(tmp_path: Path, host: str, url: str) -> None:
    with open_home(config(tmp_path, host=host, port=9000)) as home:
        assert json.loads(home.credentials.read_text())["url"] == url
        home.write_credentials("http://127.0.0.1:12345")
        assert json.loads(home.credentials.read_text())["url"] == "http://127.0.0.1:12345"
        assert mode_of(home.credentials) == 0o600


def test_a_second_control_plane_is_refused_and_told_who_holds_the_home_until_that_one_dies(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(HomeBusy, match=f"process {holder.pid}.*CORRAL_HOME") as busy, open_home(config(tmp_path)):
            pytest.fail("two control planes on one home")
        assert busy.value.pid == holder.pid
        holder.kill()
        holder.wait(10)
        with open_home(config(tmp_path)):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()


def test_a_home_that_is_open_cannot_be_opened_again_in_the_same_process(tmp_path: Path) -> None:
    with open_home(config(tmp_path)):
        with pytest.raises(HomeBusy, match=f"process {os.getpid()}"), open_home(config(tmp_path)):
            pytest.fail("opened twice")


def test_rights_that_others_were_given_are_taken_away(tmp_path: Path) -> None:
    with open_home(config(tmp_path)) as home:
        path = home.path / "secret-key"
        path.chmod(0o644)
        home.credentials.chmod(0o666)
    tmp_path.chmod(0o777)
    with open_home(config(tmp_path)) as home:
        assert mode_of(path) == mode_of(home.credentials) == 0o600
        assert mode_of(tmp_path) == 0o711


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("secret-key", b"", "it is empty"),
        ("owner-id", b"\n", "it is empty"),
        ("secret-key", b"\xff\xfe\x00", "it is not text"),
        ("credentials", b"{", "it is not JSON"),
        ("credentials", b"[]", "it is not JSON"),
    ],
)
def test_a_damaged_file_stops_the_start_and_is_named_never_replaced(
    tmp_path: Path, name: str, text: bytes, words: str
) -> None:
    with open_home(config(tmp_path)):
        pass
    (tmp_path / name).write_bytes(text)
    with pytest.raises(HomeUnusable, match=words) as unusable, open_home(config(tmp_path)):
        pytest.fail("opened")
    assert str(tmp_path / name) in str(unusable.value)
    assert (tmp_path / name).read_bytes() == text


def test_a_link_in_the_place_of_a_secret_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("x" * 64)
    home = tmp_path / "home"
    home.mkdir()
    (home / "secret-key").symlink_to(target)
    with pytest.raises(HomeUnusable, match="secret-key"), open_home(config(home)):
        pytest.fail("opened")


def test_a_path_that_is_a_file_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeUnusable, match=r"file cannot be used: .*CORRAL_HOME"), open_home(config(tmp_path / "file")):
        pytest.fail("opened")


@pytest.mark.needs("root")
def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 54321, 54321)
    with pytest.raises(HomeUnusable, match="belongs to user 54321"), open_home(config(folder)):
        pytest.fail("opened")


def test_an_error_of_what_runs_inside_is_not_blamed_on_the_home(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), open_home(config(tmp_path / "home")):
        (tmp_path / "other").read_text()


def test_a_private_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, "one")
    write_private(path, "two")
    assert path.read_text() == "two"
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "\ud800")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


# -- another key


def test_a_new_key_stands_beside_the_old_one_until_that_is_destroyed(tmp_path: Path) -> None:
    with open_home(config(tmp_path)) as home:
        old = home.secret_key
        assert (home.keeps_key, home.is_rotating, home.previous_keys) == (True, False, ())
        new = home.begin_rotation()
        assert new == home.secret_key != old
        assert home.is_rotating
    with open_home(config(tmp_path)) as home:
        assert (home.secret_key, home.previous_keys, home.is_rotating) == (new, (old,), True), "also after a crash"
        assert mode_of(tmp_path / "secret-key.previous") == 0o600
        home.end_rotation()
        home.end_rotation()
        assert not home.is_rotating
    with open_home(config(tmp_path)) as home:
        assert (home.secret_key, home.previous_keys) == (new, ())
    assert old not in "".join(path.read_text() for path in tmp_path.iterdir() if path.is_file())


def test_a_crash_before_the_new_key_was_written_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    with open_home(config(tmp_path)) as home:
        old = home.secret_key
        write_private(tmp_path / "secret-key.previous", old + "\n")
    with open_home(config(tmp_path)) as home:
        assert (home.secret_key, home.previous_keys, home.is_rotating) == (old, (old,), True)


def test_a_key_that_is_set_is_not_replaced_here_and_the_one_before_it_is_known(tmp_path: Path) -> None:
    with open_home(config(tmp_path, secret_key="n" * 40, secret_key_previous="o" * 40)) as home:
        assert (home.keeps_key, home.is_rotating, home.previous_keys) == (False, False, ("o" * 40,))
