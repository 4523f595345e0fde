"""Names of entries: which may be, and which cannot stand beside each other."""

from __future__ import annotations

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.deploy.source import names
from controlplane.deploy.source.names import EntryNames, Kind, decoded, fold, parts_of
from controlplane.deploy.source.refusal import SHOWN_CHARACTERS, Refused, spelled

NASTY = st.text(
    st.sampled_from("aAbBſsßKk./\\:\0\n\x7f\u202e\u2028éÉe\u0301Å\u212b\ud800 C~-"), min_size=0, max_size=12
) | st.text(max_size=20)
KINDS = st.sampled_from(Kind)


def refusal(*entries: tuple[str, Kind]) -> str | None:
    found = EntryNames()
    try:
        for name, kind in entries:
            found.add(name, kind)
    except Refused as refused:
        return str(refused)
    return None


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("server.py", ("server.py",)),
        ("./src/app.py", ("src", "app.py")),
        ("././a", ("a",)),
        ("folder/", ("folder",)),
        (".", ()),
        ("./", ()),
        ("a b/ü/日本.txt", ("a b", "ü", "日本.txt")),
        ("-rf", ("-rf",)),
        ("~/.bashrc", ("~", ".bashrc")),
        ("...", ("...",)),
        ("..a", ("..a",)),
        ("ab:c", ("ab:c",)),
        ("👩\u200d🔬.py", ("👩\u200d🔬.py",)),
    ],
)
def test_usual_names_stand_where_they_say(name: str, parts: tuple[str, ...]) -> None:
    assert parts_of(name) == parts


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../x", "leads out"),
        ("a/../../x", "leads out"),
        ("a/..", "leads out"),
        ("..", "leads out"),
        ("./../x", "leads out"),
        ("/etc/passwd", "absolute"),
        ("//x", "absolute"),
        ("C:/x", "drive letter"),
        ("c:x", "drive letter"),
        ("a\\..\\x", "backslash"),
        ("\\\\host\\share", "backslash"),
        ("", "empty part"),
        ("a//b", "empty part"),
        ("a//", "empty part"),
        ("a/./b", "empty part"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a\x1b[2J", "control character"),
        ("a\x7f", "control character"),
        ("a\x85", "control character"),
        ("a\u2028b", "control character"),
        ("exe.\u202eyp.py", "control character"),
        ("a\udcff", "control character"),
        ("x" * 256, "a part of more than 255 bytes"),
        ("ü" * 128, "a part of more than 255 bytes"),
        ("/".join(["x" * 200] * 6), "longer than 1,024 bytes"),
        ("d/" * 40 + "f", "40 folders deep"),
    ],
)
def test_a_name_that_could_mean_another_place_is_refused_and_shown(name: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        parts_of(name)

    assert reason in str(caught.value)
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(spelled(name))


@given(NASTY)
def test_every_name_that_is_taken_stays_inside(name: str) -> None:
    try:
        parts = parts_of(name)
    except Refused:
        return
    path = os.path.normpath("/root/" + "/".join(parts))
    assert path == "/root" + "".join("/" + part for part in parts)
    assert os.path.normpath(os.path.join("/root", name)) == path


@given(NASTY, NASTY, KINDS, KINDS)
def test_whether_two_names_collide_does_not_depend_on_their_order(a: str, b: str, of_a: Kind, of_b: Kind) -> None:
    assert (refusal((a, of_a), (b, of_b)) is None) == (refusal((b, of_b), (a, of_a)) is None)


@given(NASTY)
def test_folding_again_changes_nothing_and_normal_forms_fold_alike(name: str) -> None:
    assert fold(fold(name)) == fold(name)
    assert fold(unicodedata.normalize("NFC", name)) == fold(unicodedata.normalize("NFD", name)) == fold(name)


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("readme", "README", "differs from 'readme' only in case"),
        ("src/a", "SRC/b", "differs from 'src' only in case"),
        ("é", "e\u0301", "how its letters are encoded"),
        ("straße", "STRASSE", "only in case"),
        ("\u212b", "å", "only in case"),
        ("a", "a", "is in it twice"),
        ("a", "a/b", "needs 'a' to be a folder, but that is a file"),
        ("a/b", "a", "needs 'a' to be a file, but that is a folder"),
        ("a/b/c", "a/B", "differs from 'b' only in case"),
    ],
)
def test_names_that_some_file_system_takes_for_one_collide(first: str, second: str, reason: str) -> None:
    text = refusal((first, Kind.FILE), (second, Kind.FILE))

    assert text is not None
    assert reason in text
    assert text.startswith(spelled(second))


def test_a_folder_may_be_listed_again_and_behind_what_is_in_it() -> None:
    assert refusal(("a/b", Kind.FILE), ("a/", Kind.FOLDER), ("a", Kind.FOLDER), ("./", Kind.FOLDER)) is None


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.LINK])
@pytest.mark.parametrize("name", ["./", ".", "a/"])
def test_a_file_or_a_link_has_no_folders_name(kind: Kind, name: str) -> None:
    assert "with the name of a folder" in (refusal((name, kind)) or "")


def test_nothing_stands_below_a_link() -> None:
    assert "needs 'l' to be a folder, but that is a link" in (refusal(("l", Kind.LINK), ("l/x", Kind.FILE)) or "")
    assert "needs 'l' to be a link, but that is a folder" in (refusal(("l/x", Kind.FILE), ("l", Kind.LINK)) or "")


def test_what_no_project_needs_is_left_out_and_counted() -> None:
    found = EntryNames()

    for name in (".git/config", "sub/.git/hooks/post-checkout", ".GIT/x", "__MACOSX/a", "a/.DS_Store", "a/._b"):
        assert found.add(name, Kind.FILE) is None
    assert found.add(".gitignore", Kind.FILE) == (".gitignore",)
    assert found.left_out == {"Git's own folder": 3, "macOS's own files": 3}
    assert found.only_folder() is None


@pytest.mark.parametrize("name", [".git/../../x", ".git/\0", "__MACOSX/" + "x" * 300])
def test_names_of_what_is_left_out_are_checked_all_the_same(name: str) -> None:
    assert refusal((name, Kind.FILE)) is not None


def test_folders_that_are_only_named_on_the_way_count() -> None:
    found = EntryNames(max_nodes=10)
    found.add("a/b/c/d/e", Kind.FILE)

    with pytest.raises(Refused, match="one too many"):
        found.add("f/g/h/i/j/k", Kind.FILE)


def test_folders_have_a_bound_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MAX_FOLDERS", 5)
    found = EntryNames()
    found.add("a/b/c/d/e/f", Kind.FILE)

    with pytest.raises(Refused, match="5 folders"):
        found.add("g/", Kind.FOLDER)


def test_all_names_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "NAMES_MAX_BYTES", 1000)
    found = EntryNames()

    for number in range(5):
        found.add(f"{number}" * 200, Kind.FILE)

    with pytest.raises(Refused, match="all names together"):
        found.add("x", Kind.FILE)


def test_the_one_folder_that_everything_is_in_is_known() -> None:
    found = EntryNames()
    found.add("project-1.0/", Kind.FOLDER)
    found.add("project-1.0/a", Kind.FILE)
    found.add("__MACOSX/project-1.0/._a", Kind.FILE)
    assert found.only_folder() == "project-1.0"

    found.add("b", Kind.FILE)
    assert found.only_folder() is None


def test_one_file_is_no_folder() -> None:
    found = EntryNames()
    found.add("a", Kind.FILE)
    assert found.only_folder() is None


@pytest.fixture
def tree() -> EntryNames:
    found = EntryNames()
    for name in ("p/a.py", "p/lib/b.py", "p/lib/deep/c.py"):
        found.add(name, Kind.FILE)
    for name in ("p/link", "p/lib/link", "p/lib/deep/link", "p/lib/other"):
        found.add(name, Kind.LINK)
    return found


@pytest.mark.parametrize(
    ("link", "target", "is_there"),
    [
        ("p/link", "a.py", True),
        ("p/link", "./lib/../a.py", True),
        ("p/link", "lib/", True),
        ("p/link", "lib//deep/c.py", True),
        ("p/lib/deep/link", "../../a.py", True),
        ("p/lib/link", "..", True),
        ("p/link", "nothing", False),
        ("p/link", "A.py", False),
        ("p/link", "a.py/", False),
        ("p/link", "a.py/../lib", False),
        ("p/link", "nothing/../a.py", False),
    ],
)
def test_a_link_leads_to_what_is_there(tree: EntryNames, link: str, target: str, is_there: bool) -> None:
    assert tree.has_target(tuple(link.split("/")), target, ("p",)) is is_there


@pytest.mark.parametrize(
    ("link", "target", "reason"),
    [
        ("p/link", "../p/a.py", "out of the source"),
        ("p/link", "..", "out of the source"),
        ("p/link", "nothing/../../x", "out of the source"),
        ("p/lib/link", "../../../etc/passwd", "out of the source"),
        ("p/link", "/etc/passwd", "out of the source"),
        ("p/link", "C:x", "out of the source"),
        ("p/link", "lib/other", "through another link"),
        ("p/link", "lib/other/../x", "through another link"),
        ("p/link", "LIB/Other", "through another link"),
        ("p/link", "link", "through another link"),
        ("p/link", "", "empty"),
        ("p/link", "x" * 1025, "too long"),
        ("p/link", "a\0b", "control character"),
        ("p/link", "..\\x", "backslash"),
    ],
)
def test_a_link_out_or_through_another_link_is_refused(tree: EntryNames, link: str, target: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as caught:
        tree.has_target(tuple(link.split("/")), target, ("p",))

    assert spelled(link) in str(caught.value)


def test_bytes_that_are_no_utf8_are_refused_with_what_to_do() -> None:
    assert decoded("ü".encode()) == "ü"
    with pytest.raises(Refused, match=r"'\\xfc' is not UTF-8") as caught:
        decoded(b"\xfc")
    assert caught.value.hint


@given(st.text() | st.binary())
def test_a_hostile_name_is_shown_short_and_harmless(name: str | bytes) -> None:
    text = spelled(name)

    assert text.isprintable()
    assert len(text) <= 10 * SHOWN_CHARACTERS + 3


def test_a_long_name_is_shown_by_both_its_ends() -> None:
    text = spelled("begin" + "x" * 1000 + "end")

    assert text.startswith("'begin")
    assert text.endswith("end'")
    assert len(text) < 110
