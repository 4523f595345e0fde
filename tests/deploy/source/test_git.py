"""Real git against a real https server: what arrives, what is left out, and what is refused before anything is reached."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from attrs import define, field

from controlplane.deploy.source.address import Egress, Route
from controlplane.deploy.source.git import Fetched, fetch
from controlplane.deploy.source.gitenv import environment
from controlplane.deploy.source.giturl import UrlRefused, read_repository
from controlplane.deploy.source.gitwords import NOTED_NAMES, explain, notes_of
from controlplane.errors import BuildFailed, SourceRejected
from tests.deploy.source.https_server import Authority, Handler, Names, Server, content, proxying, redirect, serving
from tests.deploy.source.test_giturl import HOSTILE

if TYPE_CHECKING:
    from runtimes.recipe import Step

pytestmark = pytest.mark.needs("git")

AUTHOR = {
    **{f"GIT_{who}_NAME": "Ada" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "ada@example.com" for who in ("AUTHOR", "COMMITTER")},
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "HOME": "/nonexistent",
    "PATH": os.environ["PATH"],
}


@define
class Place:
    """Runs steps in a folder of its own, as a build does, but as this process's user."""

    tree: Path
    steps: list[Step] = field(factory=list)
    extra: dict[str, str] = field(factory=dict)
    before: tuple[str, ...] = ()
    largest_pack: int = 0

    async def run(self, step: Step) -> str:
        self.steps.append(step)
        home = self.tree.parent / "home"
        home.mkdir(exist_ok=True)
        env = {"PATH": os.environ["PATH"], "HOME": str(home), **self.extra, **{k: str(v) for k, v in step.env}}
        argv = [*self.before, *(str(word) for word in step.argv)]

        async def kill(process: trio.Process) -> None:
            os.killpg(process.pid, signal.SIGKILL)

        ended = await trio.run_process(
            argv,
            cwd=self.tree,
            env=env,
            stdin=b"",
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            start_new_session=True,
            deliver_cancel=kill,
        )
        self.largest_pack = max([self.largest_pack, *(path.stat().st_size for path in self.tree.rglob("*.pack"))])
        if ended.returncode:
            tail = (ended.stdout + ended.stderr).decode(errors="replace").splitlines()[-20:]
            raise BuildFailed(f"{step.name}: {argv[0]} exited", evidence={"stderr_tail": tail})
        return ended.stdout.decode()

    def files(self) -> set[str]:
        return {str(path.relative_to(self.tree)) for path in self.tree.rglob("*") if not path.is_dir()}


@define
class Work:
    """A repository to commit to, and its bare double that the server gives out."""

    folder: Path
    bare: Path

    def git(self, *argv: str, **options: Any) -> str:
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", *argv],
            cwd=self.folder, env=AUTHOR, check=True, capture_output=True, text=True, **options
        )  # fmt: skip
        return done.stdout.strip()

    def commit(self, **files: str) -> str:
        """Write files (`__` is a slash), commit, publish; returns the commit."""
        for name, text in files.items():
            path = self.folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "--quiet", "--allow-empty", "-m", "x")
        return self.publish()

    def publish(self) -> str:
        self.git("push", "--quiet", "--mirror", str(self.bare))
        return self.git("rev-parse", "HEAD")


def make_work(folder: Path, bare: Path, *options: str) -> Work:
    folder.mkdir()
    work = Work(folder, bare)
    work.git("init", "--quiet", "--initial-branch=main", *options)
    subprocess.run(
        ["git", "init", "--quiet", "--bare", "--initial-branch=main", *options, bare], check=True, env=AUTHOR
    )
    return work


@pytest.fixture
def work(tmp_path: Path, server: Server) -> Work:
    return make_work(tmp_path / "work", server.repositories / "r.git")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    tree = tmp_path / "tree"
    tree.mkdir()
    return Place(tree)


Get = Callable[..., Any]


@pytest.fixture
def get(server: Server, authority: Authority, place: Place) -> Get:
    async def get(path: str = "r.git", **options: Any) -> Fetched:
        egress = options.pop("egress", None) or Egress(
            allow_private=True, resolver=Names(), environ={"SSL_CERT_FILE": str(authority.ca)}
        )
        timeout_s = options.pop("timeout_s", 30)
        with trio.fail_after(40):
            return await fetch(
                read_repository(options.pop("url", server.url(path)), **options), egress, place.run, timeout_s=timeout_s
            )

    return get


# What arrives


async def test_the_default_branch_arrives_without_gits_own_folder(work: Work, place: Place, get: Get) -> None:
    commit = work.commit(server_py="x", pkg__mod_py="y")
    assert await get() == Fetched(commit=commit, notes=())
    assert place.files() == {"server_py", "pkg/mod_py"}
    assert not (place.tree / ".git").exists()


async def test_a_default_branch_of_another_name_arrives(work: Work, place: Place, get: Get) -> None:
    work.git("checkout", "--quiet", "-b", "trunk")
    commit = work.commit(a="1")
    subprocess.run(["git", "symbolic-ref", "HEAD", "refs/heads/trunk"], cwd=work.bare, check=True, env=AUTHOR)
    assert (await get()).commit == commit


async def test_a_branch_with_a_slash_arrives(work: Work, place: Place, get: Get) -> None:
    work.commit(a="1")
    work.git("checkout", "--quiet", "-b", "feature/x")
    commit = work.commit(a="2")
    work.git("checkout", "--quiet", "main")
    assert (await get(ref="feature/x")).commit == commit
    assert (place.tree / "a").read_text() == "2"


@pytest.mark.parametrize("annotated", [False, True])
async def test_a_tag_arrives_as_its_commit(work: Work, place: Place, get: Get, annotated: bool) -> None:
    commit = work.commit(a="1")
    work.git("tag", *(["-m", "x"] if annotated else []), "v1.0")
    work.commit(a="2")
    assert (await get(ref="v1.0")).commit == commit
    assert (place.tree / "a").read_text() == "1"


@pytest.mark.parametrize("speaks_v2", [True, False])
async def test_a_commit_arrives_by_its_id_though_no_branch_points_at_it(
    work: Work, server: Server, place: Place, get: Get, speaks_v2: bool
) -> None:
    commit = work.commit(a="1")
    work.commit(a="2")
    server.speaks_v2 = speaks_v2
    assert (await get(ref=commit)).commit == commit
    assert (place.tree / "a").read_text() == "1"


async def test_what_was_found_is_fetched_again_after_the_branch_was_rewritten(
    work: Work, place: Place, get: Get, tmp_path: Path
) -> None:
    first = await _fetched(work, get, a="1")
    work.git("commit", "--quiet", "--amend", "-m", "rewritten", "--allow-empty")
    (work.folder / "a").write_text("2")
    work.git("commit", "--quiet", "--amend", "-a", "-m", "rewritten")
    assert work.publish() != first.commit
    place.tree = tmp_path / "again"
    place.tree.mkdir()
    assert (await get(ref=first.commit)).commit == first.commit
    assert (place.tree / "a").read_text() == "1"


async def _fetched(work: Work, get: Get, **files: str) -> Fetched:
    commit = work.commit(**files)
    found = await get(ref="main")
    assert found.commit == commit
    return found


async def test_a_long_history_is_not_fetched(work: Work, place: Place, get: Get) -> None:
    for n in range(5):
        (work.folder / "big").write_bytes(os.urandom(400_000))
        work.commit(n=str(n))
    await get()
    assert 400_000 < place.largest_pack < 500_000


async def test_a_repository_with_sha256_ids_arrives_by_a_commit(
    server: Server, tmp_path: Path, place: Place, get: Get
) -> None:
    new = make_work(tmp_path / "new", server.repositories / "new.git", "--object-format=sha256")
    commit = new.commit(a="1")
    assert len(commit) == 64
    assert (await get("new.git", ref=commit)).commit == commit


async def test_a_repository_with_sha256_ids_says_so_when_a_branch_is_asked_for(
    server: Server, tmp_path: Path, get: Get
) -> None:
    make_work(tmp_path / "new", server.repositories / "new.git", "--object-format=sha256").commit(a="1")
    with pytest.raises(SourceRejected, match="SHA-256"):
        await get("new.git", ref="main")


async def test_a_folder_of_the_repository_must_be_there(work: Work, get: Get, place: Place) -> None:
    work.commit(servers__a__b="1", file="2")
    await get(subdir="servers/a")
    assert place.files() == {"servers/a/b", "file"}


@pytest.mark.parametrize("subdir", ["nope", "file", "link", "-x", "*", ":(attr:x)"])
async def test_a_folder_that_is_none_is_refused(work: Work, get: Get, subdir: str) -> None:
    (work.folder / "link").symlink_to("servers")
    work.commit(servers__a="1", file="2")
    with pytest.raises(SourceRejected, match="no folder"):
        await get(subdir=subdir)


# What is left out


async def test_a_submodule_is_not_fetched_and_noted(
    work: Work, server: Server, tmp_path: Path, place: Place, get: Get
) -> None:
    inner = make_work(tmp_path / "inner", server.repositories / "inner.git")
    inner.commit(secret="1")
    work.git("submodule", "--quiet", "add", str(inner.folder), "vendor/inner")
    work.git("config", "-f", ".gitmodules", "submodule.vendor/inner.url", server.url("inner.git"))
    work.commit(a="1")
    found = await get()
    assert found.notes == ("submodules are not fetched; their folders are empty: vendor/inner",)
    assert place.files() == {"a", ".gitmodules"}
    assert not any("inner" in path for path, _ in server.asked)


async def test_a_symbolic_link_is_written_as_text_and_noted(work: Work, place: Place, get: Get) -> None:
    (work.folder / "passwd").symlink_to("/etc/passwd")
    (work.folder / "dir").symlink_to("..")
    work.commit(a="1")
    found = await get()
    assert found.notes == ("symbolic links are written as small files that hold their target: dir, passwd",)
    assert not any(path.is_symlink() for path in place.tree.rglob("*"))
    assert (place.tree / "passwd").read_text() == "/etc/passwd"


async def test_no_filter_of_the_repository_runs_and_lfs_files_are_noted(
    work: Work, place: Place, get: Get, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    work.commit(_gitattributes="x")
    (work.folder / ".gitattributes").write_text("*.bin filter=lfs\n*.txt filter=evil ident\n")
    (work.folder / ".gitconfig").write_text(f"[filter.evil]\nsmudge = touch {marker}\n")
    (work.folder / ".lfsconfig").write_text("[lfs]\nurl = https://127.0.0.1:1/\n")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    (work.folder / "model.bin").write_text(pointer)
    work.commit(a_txt="1")
    found = await get()
    assert (place.tree / "model.bin").read_text() == pointer
    (note,) = found.notes
    assert "Git LFS" in note
    assert note.endswith(": model.bin")
    assert not marker.exists()


async def test_neither_hooks_nor_configuration_of_the_machine_or_user_run(
    work: Work, place: Place, get: Get, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "post-index-change", "fsmonitor"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (hooks / name).chmod(0o755)
    (hooks / "config").write_text(
        f"[core]\nhooksPath = {hooks}\nfsmonitor = {hooks}/fsmonitor\n"
        f'[credential]\nhelper = "!touch {marker}"\n[init]\ntemplateDir = {hooks}\n'
    )
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text((hooks / "config").read_text())
    place.extra["GIT_TEMPLATE_DIR"] = str(hooks)
    work.commit(a="1", hooks__post_checkout="#!/bin/sh\n")
    await get()
    assert not marker.exists()


@pytest.mark.parametrize("name", [".GIT/config", "git~1/config", "a/.git/hooks/post-checkout", "../../evil", ".git./x"])
async def test_a_tree_with_a_name_that_leads_elsewhere_is_refused(
    work: Work, place: Place, get: Get, name: str, tmp_path: Path
) -> None:
    work.commit(a="1")
    _write_raw_tree(work, name)
    with pytest.raises(SourceRejected, match="safely") as refused:
        await get()
    assert refused.value.evidence["stderr_tail"]
    assert not any(path.name == "evil" for path in tmp_path.rglob("*"))


def _write_raw_tree(work: Work, name: str) -> None:
    """A commit whose tree has a name that git itself would not add."""
    made = work.git("hash-object", "-w", "--stdin", input="evil")
    mode = b"100644"
    for part in reversed(name.split("/")):
        raw = mode + b" " + part.encode() + b"\x00" + bytes.fromhex(made)
        done = subprocess.run(
            ["git", "hash-object", "-w", "-t", "tree", "--literally", "--stdin"],
            cwd=work.folder, env=AUTHOR, check=True, capture_output=True, input=raw
        )  # fmt: skip
        made, mode = done.stdout.decode().strip(), b"40000"
    work.git("update-ref", "refs/heads/main", work.git("commit-tree", made, "-m", "x"))
    work.publish()


# What is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ref": "nope"}, "no branch and no tag 'nope'"),
        ({"ref": "0123456"}, "no branch and no tag"),
        ({"ref": "0" * 39 + "1"}, "does not give out the commit"),
        ({"path": "missing.git"}, "no repository at"),
    ],
)
async def test_what_is_not_there_is_told(work: Work, get: Get, options: dict[str, str], said: str) -> None:
    work.commit(a="1")
    with pytest.raises(SourceRejected, match=said) as refused:
        await get(**options)
    assert refused.value.evidence["stderr_tail"]


async def test_a_commit_that_an_old_server_has_nowhere_is_told(work: Work, server: Server, get: Get) -> None:
    work.commit(a="1")
    server.speaks_v2 = False
    with pytest.raises(SourceRejected, match="does not give out the commit"):
        await get(ref="0" * 39 + "1")


async def test_an_empty_repository_is_told(work: Work, get: Get) -> None:
    with pytest.raises(SourceRejected, match="no default branch"):
        await get()


async def test_a_tag_of_something_else_than_a_commit_is_told(work: Work, get: Get) -> None:
    work.commit(a="1")
    work.git("tag", "blob", work.git("rev-parse", "HEAD:a"))
    work.publish()
    with pytest.raises(SourceRejected, match="commit"):
        await get(ref="blob")


async def test_a_password_is_never_asked_for(server: Server, get: Get) -> None:
    server.pages["r.git"] = content(b"", 401, www_authenticate='Basic realm="x"')
    with pytest.raises(SourceRejected, match="not public"):
        await get()


@pytest.mark.parametrize("status", [301, 302, 307])
async def test_a_redirect_is_not_followed(
    server: Server, work: Work, get: Get, authority: Authority, status: int
) -> None:
    work.commit(a="1")
    with serving(authority, server.repositories) as inner:
        server.pages["moved"] = redirect(inner.url("r.git/info/refs?service=git-upload-pack"), status)
        with pytest.raises(SourceRejected, match="redirects elsewhere"):
            await get("moved")
        assert inner.connections == 0


async def test_a_page_is_no_git_server(server: Server, get: Get) -> None:
    server.pages["r.git"] = content(b"<!doctype html>\n<title>hello</title>\n", content_type="text/html")
    with pytest.raises(SourceRejected, match="no git server"):
        await get()


@pytest.mark.parametrize(
    "body", [b"001e# service=git-upload-pack\n0000zzzz", b"001e# service=git-upload-pack\n0000000eversion 9\n0000", b""]
)
async def test_rubbish_in_gits_own_protocol_is_refused(server: Server, get: Get, body: bytes) -> None:
    server.pages["r.git"] = content(body, content_type="application/x-git-upload-pack-advertisement")
    with pytest.raises(SourceRejected):
        await get()


async def test_a_plain_file_server_is_told(server: Server, work: Work, get: Get) -> None:
    commit = work.commit(a="1")
    server.pages["r.git/HEAD"] = content(b"ref: refs/heads/main\n")
    server.pages["r.git/info/refs"] = content(f"{commit}\trefs/heads/main\n".encode(), content_type="text/plain")
    with pytest.raises(SourceRejected, match="plain file server"):
        await get()


async def test_a_server_that_drips_is_given_up(server: Server, get: Get) -> None:
    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "application/x-git-upload-pack-advertisement")
        handler.send_header("content-length", "1000000")
        handler.end_headers()
        with suppress(OSError):
            while not server.ended.wait(0.05):
                handler.wfile.write(b"0")

    server.pages["r.git"] = drip
    began = time.monotonic()
    with pytest.raises(SourceRejected, match="took more than 1 s"):
        await get(timeout_s=1)
    assert time.monotonic() - began < 15


async def test_a_certificate_of_an_unknown_authority_is_refused(work: Work, server: Server, get: Get) -> None:
    work.commit(a="1")
    with pytest.raises(SourceRejected, match="secure connection"):
        await get(egress=Egress(allow_private=True, resolver=Names()))
    assert server.asked == []


async def test_a_certificate_of_another_name_is_refused(work: Work, server: Server, get: Get) -> None:
    work.commit(a="1")
    with pytest.raises(SourceRejected, match="secure connection"):
        await get(url=f"https://other.test:{server.port}/r.git")
    assert server.asked == []


async def test_a_file_limit_on_the_pack_is_told_as_its_size(work: Work, place: Place, get: Get) -> None:
    (work.folder / "big").write_bytes(os.urandom(3_000_000))
    work.commit(a="1")
    place.before = ("prlimit", "--fsize=1000000")
    with pytest.raises(SourceRejected, match="too large"):
        await get()


# Where it connects to


@pytest.mark.parametrize("url", HOSTILE)
async def test_no_hostile_spelling_gets_as_far_as_a_command(url: str, place: Place) -> None:
    with pytest.raises((UrlRefused, SourceRejected)):
        await fetch(read_repository(url), Egress(), place.run, timeout_s=15)
    assert place.steps == []


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]"),
        *("169.254.169.254", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "10.0.0.1", "192.168.0.1", "[fe80::1]"),
    ],
)
async def test_this_host_and_its_neighbours_are_refused_and_a_listener_sees_nothing(host: str, place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        repository = read_repository(f"https://{host}:{listener.getsockname()[1]}/r.git")
        with pytest.raises(SourceRejected):
            await fetch(repository, Egress(), place.run, timeout_s=15)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert place.steps == []
    assert place.files() == set()


async def test_the_address_that_was_judged_is_the_one_connected_to(
    work: Work, server: Server, authority: Authority, get: Get
) -> None:
    """R67: no resolver but ours knows `git.test`; asked a second time, ours would lead elsewhere."""
    work.commit(a="1")
    names = Names([("127.0.0.1",), ("127.0.0.2",)])
    await get(egress=Egress(allow_private=True, resolver=names, environ={"SSL_CERT_FILE": str(authority.ca)}))
    assert names.asked == ["git.test"]
    assert server.connections > 0


async def test_a_numeric_host_needs_no_pin(work: Work, server: Server, place: Place, get: Get) -> None:
    commit = work.commit(a="1")
    assert (await get(url=f"https://127.0.0.1:{server.port}/r.git")).commit == commit
    assert "http.curloptResolve" not in [value for _, value in place.steps[0].env]


async def test_the_operators_proxy_leads_there(work: Work, server: Server, authority: Authority, get: Get) -> None:
    commit = work.commit(a="1")
    names = Names()
    with proxying(server.port) as (port, asked):
        environ = {"HTTPS_PROXY": f"http://127.0.0.1:{port}", "SSL_CERT_FILE": str(authority.ca)}
        assert (await get(egress=Egress(environ=environ, resolver=names))).commit == commit
    assert set(asked) == {f"git.test:{server.port}"}
    assert names.asked == []


async def test_a_proxy_that_a_build_would_get_is_not_used_past_the_judgement(
    work: Work, place: Place, get: Get
) -> None:
    commit = work.commit(a="1")
    place.extra |= {"HTTPS_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1", "NO_PROXY": "x"}
    assert (await get()).commit == commit


async def test_a_git_that_cannot_be_pinned_is_not_used(place: Place) -> None:
    async def old(step: Step) -> str:
        place.steps.append(step)
        return "git version 2.34.1"

    with pytest.raises(SourceRejected, match="too old"):
        await fetch(read_repository("https://x.test/r"), Egress(resolver=Names([("8.8.8.8",)])), old, timeout_s=5)
    assert len(place.steps) == 1


def test_every_step_has_nothing_but_what_is_decided_here() -> None:
    repository = read_repository("https://h.example/r")
    env = dict(environment(repository, Route(addresses=("8.8.8.8", "2a00:1450::1"))))
    config = {
        env[f"GIT_CONFIG_KEY_{n}"]: env[f"GIT_CONFIG_VALUE_{n}"] for n in range(int(str(env["GIT_CONFIG_COUNT"])))
    }
    assert config["http.curloptResolve"] == "h.example:443:8.8.8.8,[2a00:1450::1]"
    assert (config["protocol.allow"], config["protocol.https.allow"]) == ("never", "always")
    assert env["GIT_ALLOW_PROTOCOL"] == "https"
    assert env["GIT_TERMINAL_PROMPT"] == "0"
    assert "GIT_SSH_COMMAND" not in env


async def test_by_ssh_the_judged_address_is_connected_to_and_the_hosts_key_is_looked_up_by_its_name() -> None:
    steps: list[Step] = []

    async def run(step: Step) -> str:
        steps.append(step)
        raise BuildFailed("x", evidence={"stderr_tail": ["git@h.example: Permission denied (publickey)."]})

    repository = read_repository("git@h.example:o/r.git", allow_ssh=True)
    with pytest.raises(SourceRejected, match="by ssh"):
        await fetch(repository, Egress(resolver=Names([("8.8.8.8",)])), run, timeout_s=5)
    env = dict(steps[0].env)
    assert "-oHostName=8.8.8.8 -oHostKeyAlias=h.example -oStrictHostKeyChecking=yes" in str(env["GIT_SSH_COMMAND"])
    assert env["GIT_ALLOW_PROTOCOL"] == "ssh"


def test_notes_name_some_of_many() -> None:
    lines = "\n".join(f"120000 {n:040x} 0\tlink{n:02}" for n in range(30))
    (note,) = notes_of(lines)
    assert note.count("link") == NOTED_NAMES + 1  # and "links" itself
    assert note.endswith(", …")
    assert notes_of("") == ()


def test_a_repositorys_name_is_not_taken_for_what_git_says() -> None:
    repository = read_repository("https://h.example/SSL_certificate-proxy-redirect-fsck")
    said = f"fatal: unable to access '{repository.url}/': Failed to connect to h.example port 443"
    told = explain(BuildFailed("fetch", evidence={"stderr_tail": [said]}), repository)
    assert told.detail == "h.example cannot be reached"


def test_what_git_says_that_nobody_foresaw_is_passed_on() -> None:
    failed = BuildFailed("fetch: git exited with status 128", evidence={"stderr_tail": ["fatal: the moon is full"]})
    told = explain(failed, read_repository("https://h.example/r"))
    assert "git could not fetch https://h.example/r" in told.detail
    assert told.evidence == failed.evidence
