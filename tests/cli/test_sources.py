"""What the word behind `corral deploy` becomes: a folder, an archive, a file, an address."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import tarfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from controlplane.packing.folder import pack
from controlplane.packing.refusal import Unusable
from controlplane.packing.sources import source_of
from tests.cli.fake_api import document, instance

DEPLOY = "POST /api/v2/deploy"


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=folder, check=True, timeout=30)


def packed(folder: Path) -> list[str]:
    archive = io.BytesIO()
    pack(folder, archive)
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar:
        return tar.getnames()


def test_a_repository_is_packed_as_git_would_take_it(tmp_path):
    write(tmp_path, server_dot_py="x", ignored_dot_log="x", kept_dot_log="x", sub__a_dot_py="x", gone_dot_py="x")
    write(tmp_path, _dot_gitignore="*.log\n", node_modules__m_dot_js="x")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-f", "kept.log", "gone.py", "server.py")
    (tmp_path / "gone.py").unlink()
    assert packed(tmp_path) == [".gitignore", "kept.log", "server.py", "sub/a.py"]


def test_a_folder_below_a_repository_is_packed_alone(tmp_path):
    write(tmp_path, outside_dot_py="x", sub__server_dot_py="x")
    git(tmp_path, "init", "-q")
    assert packed(tmp_path / "sub") == ["server.py"]


def test_a_folder_outside_any_repository_heeds_its_gitignore(tmp_path):
    write(tmp_path, server_dot_py="x", a_dot_log="x", sub__b_dot_tmp="x", sub__b_dot_py="x", __pycache____x_dot_pyc="x")
    write(tmp_path, _dot_gitignore="*.log\n", sub___dot_gitignore="*.tmp\n")
    assert packed(tmp_path) == [".gitignore", "server.py", "sub/.gitignore", "sub/b.py"]


def test_the_same_content_is_the_same_archive(tmp_path):
    first, second = io.BytesIO(), io.BytesIO()
    write(tmp_path, server_dot_py="x", b_dot_py="y")
    pack(tmp_path, first)
    (tmp_path / "server.py").touch()
    pack(tmp_path, second)
    assert first.getvalue() == second.getvalue()


def test_a_link_is_packed_as_a_link_and_a_program_stays_one(tmp_path):
    write(tmp_path, run_dot_sh="#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o750)
    (tmp_path / "link").symlink_to("run.sh")
    archive = io.BytesIO()
    pack(tmp_path, archive)
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar:
        link, program = tar.getmembers()
    assert (link.linkname, program.mode, program.uid, program.mtime) == ("run.sh", 0o755, 0, 0)


def test_what_a_stranger_s_repository_names_as_a_program_is_not_run(tmp_path):
    write(tmp_path, server_dot_py="x")
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", "core.fsmonitor", f"touch {tmp_path}/ran; false")
    assert packed(tmp_path) == ["server.py"]
    assert not (tmp_path / "ran").exists()


def test_what_lies_behind_a_link_is_not_packed_whatever_the_index_says(tmp_path):
    folder = tmp_path / "folder"
    write(tmp_path, private__key="x", folder__server_dot_py="x")
    git(folder, "init", "-q")
    git(folder, "add", "server.py")
    (folder / "docs").symlink_to("../private")
    blob = subprocess.run(["git", "rev-parse", ":server.py"], cwd=folder, check=True, capture_output=True, timeout=30)
    git(folder, "update-index", "--add", "--cacheinfo", f"100644,{blob.stdout.decode().strip()},docs/key")
    assert "docs/key" not in packed(folder)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(Unusable, match="nothing to deploy"):
        pack(tmp_path, io.BytesIO())


@pytest.mark.parametrize(
    ("word", "kind", "name"),
    [
        ("https://github.com/example/weather-mcp.git#v1", "git", "weather-mcp"),
        ("https://github.com/example/Weather.MCP", "git", "weather"),
        ("https://example.com/a/tools-1.2.tar.gz", "tar", "tools-1"),
        ("https://example.com/a/tools.zip?x=1", "zip", "tools"),
        ("git@github.com:example/x.git", "git", "x"),
        ("http://example.com/x", "git", "x"),
    ],
)
def test_an_address_is_a_repository_or_an_archive(word, kind, name):
    with ExitStack() as stack:
        source = source_of(word, stack)
    assert (source.fields, source.name) == ({"source_type": kind, "source_url": word}, name)


def test_a_file_is_sent_as_it_is(tmp_path):
    write(tmp_path, My_Server_dot_py="print(1)")
    with ExitStack() as stack:
        source = source_of(str(tmp_path / "My_Server.py"), stack)
    assert source.name == "my-server"
    assert base64.b64decode(source.fields.pop("source_data")) == b"print(1)"
    assert source.fields == {"source_type": "direct", "entry_point": "My_Server.py"}


def test_a_program_goes_as_an_archive_of_its_own(tmp_path):
    (tmp_path / "server").write_bytes(b"\x7fELF" + bytes(100))
    with ExitStack() as stack:
        source = source_of(str(tmp_path / "server"), stack)
        assert source.fields == {"source_type": "tar", "entry_point": "server", "language": "binary"}
        assert source.upload is not None
        with tarfile.open(fileobj=source.upload) as tar:
            assert [(entry.name, entry.mode) for entry in tar] == [("server", 0o755)]


def test_deploying_a_folder_sends_its_archive_beside_the_spec(api, corral, tmp_path):
    folder = tmp_path / "Weather_Tools"
    write(folder, server_dot_py="x", _dot_env="KEY=1", go_dot_mod="y")
    api.on(DEPLOY, document(instance("weather-tools"), 201))
    shown = corral("deploy", str(folder), "--language", "go", "--entry", "./cmd", "-d", "a", "-d", "b", "-e", "K=v")
    asked = api.asked_for(DEPLOY)[0]
    assert asked.headers["content-type"].startswith("multipart/form-data; boundary=")
    spec = json.loads(re.search(rb'name="spec"\r\n.*?\r\n\r\n(\{.*?\})\r\n--', asked.body, re.DOTALL)[1])
    assert spec == {
        "name": "weather-tools",
        "source_type": "tar",
        "language": "go",
        "entry_point": "./cmd",
        "dependencies": ["a", "b"],
        "environment_vars": {"K": "v"},
    }
    assert b"\x1f\x8b" in asked.body, "the archive is gzip"
    assert shown.err.startswith("packed 3 files, ")
    assert "Warning: .env looks as if it holds a secret" in shown.err


def test_redeploy_sends_only_what_changes(api, corral):
    path = "POST /instances/memory/redeploy"
    api.on(path, document(instance()))
    assert corral("redeploy", "memory").code == 0
    assert corral("redeploy", "memory", "--memory", "64", "--", "npx", "-y", "x@2").code == 0
    first, second = (asked.json for asked in api.asked_for(path))
    assert first == {}
    command = {"command": "npx", "args": ["-y", "x@2"]}
    assert second == {"source_type": "mcp_config", "mcp_config": command, "limits": {"memory_mb": 64}}


def test_a_redeploy_that_takes_longer_than_the_wait_is_no_success(api, corral):
    under_way = instance(revision=4, candidate={"revision": 5, "phase": "build: install"})
    api.on("POST /instances/memory/redeploy", document(under_way, 202))
    shown = corral("redeploy", "memory", "--wait", "1")
    assert shown.code == 6
    assert "Revision 5 of memory is not in force yet" in shown.err
    assert "Revision 4 goes on serving" in shown.err


def test_rollback_names_a_revision_or_leaves_it_to_the_server(api, corral):
    path = "POST /instances/memory/rollback"
    api.on(path, document(instance()))
    assert corral("rollback", "memory").code == 0
    assert corral("rollback", "memory", "3").code == 0
    assert [asked.json for asked in api.asked_for(path)] == [{"revision": None}, {"revision": 3}]


def test_revisions_are_listed_with_what_became_of_each(api, corral):
    row = {"revision": 2, "state": "active", "created_at": "2026-11-22T10:00:00Z", "cause": "redeploy"}
    row |= {"language": "node", "source": "npx -y x", "resolved": {"package": "x@1.2.3"}, "failure": None}
    bad = {**row, "revision": 3, "state": "failed", "resolved": {}, "failure": {"reason": "it crashed"}}
    api.on("GET /instances/memory/revisions", document({"revisions": [bad, row], "next_cursor": None}))
    shown = corral("revisions", "memory")
    lines = shown.out.splitlines()
    assert lines[0].split() == ["REV", "STATE", "CREATED", "CAUSE", "LANGUAGE", "SOURCE", "RESOLVED"]
    assert "✗ failed" in lines[1]
    assert "x@1.2.3" in lines[2]
    assert "revision 3: it crashed" in shown.err


def test_the_cache_is_listed_verified_and_pruned(api, corral):
    row = {"key": "shared/ab", "scope": "shared", "kind": "npm", "label": "x@1", "size_bytes": 2_000_000, "files": 10}
    row |= {"in_use_by": 3, "created_at": "2026-11-22T10:00:00Z", "last_used_at": "2026-11-22T10:00:00Z"}
    api.on("GET /cache", document({"installs": [row], "total_bytes": 2_000_000, "limit_bytes": 10**10}))
    api.on("POST /cache/verify", document({"checked": 1, "damaged": ["shared/ab"], "repaired": []}))
    api.on("POST /cache/prune", document({"removed": ["shared/ab"], "freed_bytes": 2_000_000}))
    assert "2.0 MB" in corral("cache", "ls").out
    verified = corral("cache", "verify")
    assert (verified.code, verified.out) == (1, "1 checked, 1 damaged\n✗ shared/ab\n")
    assert corral("cache", "prune", "--all").out == "1 removed, 2.0 MB freed\n"
    assert api.asked_for("POST /cache/prune")[0].query == {"all": "true"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["deploy", "a", "b", "c"], "Too many words"),
        (["deploy", "x", ".", "--", "npx"], "Too many words"),
        (["deploy", "x", "--ref", "main", "--", "npx"], "goes with a source, not with a command"),
        (["deploy", ".", "--cwd", "/x"], "--cwd goes with a command"),
        (["redeploy", "x", ".", "--", "npx"], "Give a source or a command, not both"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_sent(api, corral, arguments, message):
    shown = corral(*arguments)
    assert shown.code == 2
    assert message in shown.err
    assert not api.asked
