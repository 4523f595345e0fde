"""How a server is to be kept: options of `deploy` and `redeploy`, as tables."""

from __future__ import annotations

import click
import pytest

from controlplane.cli.keeping import LIMITS, keeping, limits_of, mount_of, network_of
from tests.cli.fake_api import document, instance

UNSAID = {
    "memory_mb": None,
    "cpu_percent": None,
    "limits": (),
    "isolation": None,
    "network": None,
    "allow_hosts": (),
    "mounts": (),
}


def test_what_was_not_said_is_not_sent():
    assert keeping(UNSAID) == {}


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ({"memory_mb": 64}, {"memory_mb": 64}),
        ({"limits": ("disk=500", "open-files=128")}, {"disk_mb": 500, "open_files": 128}),
        ({"limits": ("disk_mb=500", "processes=9")}, {"disk_mb": 500, "processes": 9}),
        ({"limits": ("call-timeout=1.5", "log=64")}, {"call_timeout_s": 1.5, "log_kb_s": 64}),
        ({"memory_mb": 64, "limits": ("memory=32",)}, {"memory_mb": 32}),
    ],
)
def test_limits_have_the_words_of_people_and_of_the_api(options, limits):
    assert limits_of(UNSAID | options) == limits


@pytest.mark.parametrize("text", ["disk", "=3", "disk=much", "disk=1.5", "disc=3"])
def test_a_limit_that_cannot_be_read_is_wrong_usage(text):
    with pytest.raises(click.BadParameter):
        limits_of(UNSAID | {"limits": (text,)})


def test_an_unknown_limit_is_answered_with_those_there_are():
    with pytest.raises(click.BadParameter) as caught:
        limits_of(UNSAID | {"limits": ("disc=3",)})
    assert all(name in str(caught.value) for name in LIMITS)


@pytest.mark.parametrize(
    ("mode", "hosts", "network"),
    [
        (None, (), None),
        ("open", (), {"mode": "open"}),
        ("none", (), {"mode": "none"}),
        (None, ("a.example", "b.example:443"), {"mode": "allow", "hosts": ["a.example", "b.example:443"]}),
        ("allow", ("a.example",), {"mode": "allow", "hosts": ["a.example"]}),
    ],
)
def test_a_host_that_is_allowed_means_that_no_other_is(mode, hosts, network):
    assert network_of(mode, hosts) == network


@pytest.mark.parametrize(("mode", "hosts"), [("none", ("a",)), ("open", ("a",)), ("allow", ())])
def test_hosts_and_a_mode_that_contradict_each_other_are_wrong_usage(mode, hosts):
    with pytest.raises(click.UsageError):
        network_of(mode, hosts)


@pytest.mark.parametrize(
    ("text", "source", "target", "mode"),
    [
        ("/srv/a", "/srv/a", "/srv/a", "ro"),
        ("/srv/a:rw", "/srv/a", "/srv/a", "rw"),
        ("/srv/a:/data", "/srv/a", "/data", "ro"),
        ("/srv/a:/data:rw", "/srv/a", "/data", "rw"),
        ("/srv/a:/data:ro", "/srv/a", "/data", "ro"),
    ],
)
def test_a_mount_is_read_only_and_where_it_is_unless_said_otherwise(text, source, target, mode):
    assert mount_of(text) == {"source": source, "target": target, "mode": mode}


@pytest.mark.parametrize("text", ["srv", "/a:b", "/a:/b:/c", "/a:/b:rwx", ":/b", "rw", ""])
def test_a_mount_that_cannot_be_read_is_wrong_usage(text):
    with pytest.raises(click.BadParameter):
        mount_of(text)


def test_a_new_revision_takes_the_same_options(api, corral):
    api.on("POST /instances/memory/redeploy", document(instance()))
    options = ["--limit", "disk=9", "--isolation", "confined", "--network", "none", "--mount", "/srv/a:rw"]
    assert corral("redeploy", "memory", *options).code == 0
    assert api.asked_for("POST /instances/memory/redeploy")[0].json == {
        "limits": {"disk_mb": 9},
        "isolation": "confined",
        "network": {"mode": "none"},
        "mounts": [{"source": "/srv/a", "target": "/srv/a", "mode": "rw"}],
    }
