"""Which addresses of repositories and archives are taken, and in which words the others are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.deploy.source.giturl import (
    REF_MAX_CHARS,
    URL_MAX_CHARS,
    UrlRefused,
    check_ref,
    is_commit,
    read_archive_url,
    read_repository,
    read_subdir,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HOSTILE = [
    "ext::sh -c touch% /tmp/pwned",
    "ext::sh",
    "fd::17/foo",
    "transport::https://example.com/x",
    "--upload-pack=touch /tmp/pwned",
    "--upload-pack=touch",
    "-u",
    "file:///etc/passwd",
    "/etc",
    "./repo",
    "../repo",
    "~/repo",
    "repo.git",
    "C:\\repo",
    "C:/repo",
    "\\\\host\\share",
    "git://example.com/x.git",
    "http://example.com/x.git",
    "ftp://example.com/x.git",
    "gopher://example.com/x",
    "dict://example.com/x",
    "git+ssh://git@example.com/x",
    "git+https://example.com/x.git",
    "ssh://git@example.com/x.git",
    "ssh://-oProxyCommand=touch@example.com/x",
    "ssh://-oProxyCommand=touch/x",
    "git@example.com:x.git",
    "https://user:password@example.com/x.git",
    "https://token@example.com/x.git",
    "https://@example.com/x.git",
    "https://example.com@127.0.0.1/x.git",
    "https://example.com\\@127.0.0.1/x.git",
    "https://example.com#@127.0.0.1/x.git",
    "https://-example.com/x.git",
    "https://127.1/x.git",
    "https://2130706433/x.git",
    "https://0x7f000001/x.git",
    "https://0x7f.0.0.1/x.git",
    "https://0177.0.0.1/x.git",
    "https://127.0.0.1./x.git",
    "https://127.0.0.0x1/x.git",
    "https://[::1%25lo]/x.git",
    "https://[::1/x.git",
    "https://[127.0.0.1]/x.git",
    "https://exa%6dple.com/x.git",
    "https://example.com%2f@127.0.0.1/x.git",
    "https://example。com/x.git",
    "https://ⅇxample.com/x.git",
    "https://bücher.example/x.git",
    "https://example..com/x.git",
    "https://.example.com/x.git",
    "https://exam ple.com/x.git",
    "https://example.com/x.git\n",
    "https://example.com/x\r\nHost: evil/.git",
    "https://example.com/\x00x.git",
    "https://example.com/\u202ex.git",
    "\thttps://example.com/x.git",
    "https:///x.git",
    "https://",
    "https:example.com/x.git",
    "https:/example.com/x.git",
    "https://example.com",
    "https://example.com/",
    "https://example.com?/x.git",
    "https://example.com:22/x.git",
    "https://example.com:0/x.git",
    "https://example.com:65536/x.git",
    "https://example.com:443:80/x.git",
    "https://example.com:+443/x.git",
    "https://example.com/a/../x.git",
    "https://example.com/%2e%2e/x.git",
    "https://example.com/a%00b.git",
    "https://example.com/a%0d%0ab.git",
    "https://example.com/a%zz.git",
    "https://example.com/<x>.git",
    "https://example.com/x.git?service=git-upload-pack",
    "https://example.com/x.git#",
    "https://example.com/x.git#--upload-pack=touch",
    "https://example.com/x.git#main:refs/heads/x",
    "https://example.com/x.git#+main",
    "https://example.com/x.git#a..b",
    "",
    "https://example.com/" + "x" * URL_MAX_CHARS,
]


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_spelling_is_refused(url: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        read_repository(url)
    assert refused.value.message
    assert refused.value.field == "source_url"
    assert "password" not in refused.value.message.replace("no password", "")


def test_there_are_at_least_38_hostile_spellings() -> None:
    assert len(set(HOSTILE)) >= 38


@pytest.mark.parametrize("url", [url for url in HOSTILE if "#" not in url and "?" not in url])
def test_an_archive_is_no_easier_to_reach(url: str) -> None:
    with pytest.raises(UrlRefused):
        read_archive_url(url)


@pytest.mark.parametrize(
    ("url", "host", "port", "canonical"),
    [
        ("https://github.com/o/r", "github.com", 443, "https://github.com/o/r"),
        ("HTTPS://GitHub.com/o/R.git", "github.com", 443, "https://github.com/o/R.git"),
        ("https://github.com:443/o/r", "github.com", 443, "https://github.com/o/r"),
        ("https://github.com:/o/r", "github.com", 443, "https://github.com/o/r"),
        ("https://git.example:8443/r.git", "git.example", 8443, "https://git.example:8443/r.git"),
        ("https://xn--bcher-kva.example/r", "xn--bcher-kva.example", 443, "https://xn--bcher-kva.example/r"),
        ("https://93.184.216.34/r", "93.184.216.34", 443, "https://93.184.216.34/r"),
        ("https://[2606:2800:220:1::1]/r", "2606:2800:220:1::1", 443, "https://[2606:2800:220:1::1]/r"),
        ("https://[0:0:0:0:0:0:0:1]:9999/r", "::1", 9999, "https://[::1]:9999/r"),
        ("https://dev.azure.com/o/p%20q/_git/r", "dev.azure.com", 443, "https://dev.azure.com/o/p%20q/_git/r"),
        ("https://git.sr.ht/~user/r", "git.sr.ht", 443, "https://git.sr.ht/~user/r"),
    ],
)
def test_a_plain_address_is_written_anew(url: str, host: str, port: int, canonical: str) -> None:
    found = read_repository(url)
    assert (found.host, found.port, found.url) == (host, port, canonical)
    assert found.ref is None
    assert found.subdir is None


def test_what_is_written_anew_reads_as_itself() -> None:
    once = read_repository("HTTPS://Example.com:443/a/b.git#v1", subdir="./servers/x/")
    again = read_repository(once.url, ref=once.ref, subdir=once.subdir)
    assert again == once


def test_the_ref_stands_behind_the_hash_or_beside_the_address() -> None:
    assert read_repository("https://h.example/r#feature/x").ref == "feature/x"
    assert read_repository("https://h.example/r", ref="v1.2.3").ref == "v1.2.3"
    assert read_repository("https://h.example/r#v1", ref="v1").ref == "v1"
    assert read_repository("https://h.example/r#größe").ref == "größe"


def test_two_refs_that_differ_are_refused_at_the_second() -> None:
    with pytest.raises(UrlRefused, match="source_ref") as refused:
        read_repository("https://h.example/r#v1", ref="v2")
    assert refused.value.field == "source_ref"


def test_a_full_commit_id_is_pinned_and_written_in_lower_case() -> None:
    found = read_repository("https://h.example/r#" + COMMIT.upper())
    assert found.ref == COMMIT
    assert found.is_pinned
    assert is_commit("a" * 64)
    assert not read_repository("https://h.example/r#0123456").is_pinned
    assert not read_repository("https://h.example/r").is_pinned


@pytest.mark.parametrize("ref", ["main", "feature/a-b_c", "v1.2.3", "refs/heads/main", "a@b", "#1", "100%", "größe"])
def test_a_usual_ref_is_taken(ref: str) -> None:
    check_ref(ref)


@pytest.mark.parametrize(
    "ref",
    [
        *("", "-x", "--upload-pack=x", "+main", "a b", "a\tb", "a\nb", "a\x00b", "a~1", "a^", "^a", "a:b", "a?", "a*"),
        *("a[b", "a\\b", "a..b", "..", ".", ".a", "a/.b", "a.lock", "a.lock/b", "a.", "/a", "a/", "a//b", "@", "a@{1}"),
        "x" * (REF_MAX_CHARS + 1),
    ],
)
def test_a_ref_that_git_would_read_as_something_else_is_refused(ref: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        check_ref(ref)
    assert refused.value.field == "source_ref"


@pytest.mark.parametrize(
    ("subdir", "meant"),
    [
        (None, None),
        ("", None),
        (".", None),
        ("./", None),
        ("servers/weather", "servers/weather"),
        ("./servers/weather/", "servers/weather"),
        ("-x", "-x"),
        (".github", ".github"),
    ],
)
def test_a_subdir_is_a_folder_of_the_source(subdir: str | None, meant: str | None) -> None:
    assert read_subdir(subdir) == meant


@pytest.mark.parametrize(
    "subdir", ["/", "/etc", "..", "a/..", "../a", "a//b", "a/./b", ".git", "a/.GIT", "C:/x", "a\\b", "a\nb", "x" * 2000]
)
def test_a_subdir_that_leads_elsewhere_is_refused(subdir: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        read_subdir(subdir)
    assert refused.value.field == "source_subdir"


def test_ssh_is_refused_with_the_reason_until_the_operator_allows_it() -> None:
    for url in ("ssh://git@github.com/o/r.git", "git@github.com:o/r.git"):
        with pytest.raises(UrlRefused, match="secret"):
            read_repository(url)
        found = read_repository(url, allow_ssh=True)
        assert (found.scheme, found.host, found.port) == ("ssh", "github.com", 22)
        assert found.url == "ssh://git@github.com/o/r.git"


@pytest.mark.parametrize(
    "url",
    [
        "ssh://root@h.example/r",
        "ssh://git:pw@h.example/r",
        "ssh://h.example/r",
        "ssh://git@-oProxyCommand=x/r",
        "git@-oProxyCommand=x:r",
        "ssh://git@h.example/r;id",
        "ssh://git@h.example/$(id)",
        "ssh://git@h.example:25/r",
        "git@h.example:ext::x",
    ],
)
def test_ssh_takes_no_options_users_or_shell_characters(url: str) -> None:
    with pytest.raises(UrlRefused):
        read_repository(url, allow_ssh=True)


def test_an_archive_may_have_a_signature_in_its_query_which_is_not_shown() -> None:
    found = read_archive_url("https://bucket.example/x.tar.gz?X-Sig=s3cr3t&e=1")
    assert found.url == "https://bucket.example/x.tar.gz?X-Sig=s3cr3t&e=1"
    assert found.shown == "https://bucket.example/x.tar.gz"


def test_an_archive_has_no_ref() -> None:
    with pytest.raises(UrlRefused, match="#"):
        read_archive_url("https://h.example/x.zip#main")


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("github.com/o/r", "write https://github.com/o/r"),
        ("http://github.com/o/r", "try https://github.com/o/r"),
        ("git+https://github.com/o/r", "write https://github.com/o/r"),
    ],
)
def test_the_hint_says_what_to_write_instead(url: str, hint: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        read_repository(url)
    assert refused.value.hint == hint


@given(st.text(max_size=60).map(lambda text: "https://" + text) | st.text(max_size=60))
def test_whatever_is_taken_is_plain_and_reads_as_itself(url: str) -> None:
    try:
        found = read_repository(url)
    except UrlRefused:
        return
    assert found.url.startswith("https://")
    assert found.url.isascii()
    assert "@" not in found.url.removeprefix("https://").partition("/")[0]
    assert read_repository(found.url, ref=found.ref) == found
