"""Where an instance may connect to, as tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.hosts import HostPattern, normal, parse_pattern
from controlplane.egress.notices import MAX_TARGETS, WINDOW_S, Notices
from controlplane.egress.pace import Pace
from controlplane.egress.policy import ALLOW_HINT, NOTHING, Policy, Verdict

PRIVATE = "at a private address"
LISTED = ("db.internal:5432", "10.0.0.5:443", "127.0.0.1:6379", "[fd00::5]:443", "169.254.169.254:80", "*.corp.test:80")


@pytest.mark.parametrize(
    ("policy", "host", "port", "reason"),
    [
        (Policy(), "93.184.216.34", 443, None),
        (Policy(), "api.example.com", 25, None),
        (Policy(), "2606:4700::1", 443, None),
        (Policy(), "10.0.0.5", 443, PRIVATE),
        (Policy(), "127.0.0.1", 5432, PRIVATE),
        (Policy(), "169.254.169.254", 80, "link-local"),
        (Policy(), "100.100.100.200", 80, "credentials"),
        (Policy(), "::ffff:127.0.0.1", 80, PRIVATE),
        (Policy(), "64:ff9b::7f00:1", 80, PRIVATE),
        (Policy(), "0.0.0.0", 80, "special purpose"),
        (Policy(allow_private=LISTED), "10.0.0.5", 443, None),
        (Policy(allow_private=LISTED), "10.0.0.5", 80, PRIVATE),
        (Policy(allow_private=LISTED), "10.0.0.6", 443, PRIVATE),
        (Policy(allow_private=LISTED), "fd00::5", 443, None),
        (Policy(allow_private=LISTED), "169.254.169.254", 80, None),
        (Policy("none"), "93.184.216.34", 443, NOTHING),
        (Policy("none", allow_private=LISTED), "10.0.0.5", 443, NOTHING),
        (Policy("allow", ("example.com",)), "example.com", 443, None),
        (Policy("allow", ("Example.COM.",)), "example.com", 443, None),
        (Policy("allow", ("example.com",)), "api.example.com", 443, "api.example.com:443 is not in network.hosts"),
        (Policy("allow", ("*.example.com",)), "api.example.com", 443, None),
        (Policy("allow", ("*.example.com",)), "a.b.example.com", 443, None),
        (Policy("allow", ("*.example.com",)), "example.com", 443, "not in network.hosts"),
        (Policy("allow", ("*.example.com",)), "badexample.com", 443, "not in network.hosts"),
        (Policy("allow", ("example.com:443",)), "example.com", 80, "not in network.hosts"),
        (Policy("allow", ("93.184.216.34",)), "93.184.216.34", 80, None),
        (Policy("allow", ("93.184.216.34",)), "93.184.216.35", 80, "93.184.216.35:80 is not in network.hosts"),
        (Policy("allow", ("2606:4700:0:0::1",)), "2606:4700::1", 80, None),
        (Policy("allow", ("10.0.0.5",)), "10.0.0.5", 443, PRIVATE),
        (Policy("allow", ("10.0.0.5",), LISTED), "10.0.0.5", 443, None),
        (Policy("allow", (), LISTED), "10.0.0.5", 443, "not in network.hosts"),
        (Policy("allow", ()), "2606:4700::1", 443, "[2606:4700::1]:443 is not in network.hosts"),
    ],
)
def test_what_a_program_asks_for_is_let_through_or_refused(
    policy: Policy, host: str, port: int, reason: str | None
) -> None:
    found = policy.refusal(host, port)

    assert (found is None) == (reason is None), found
    assert (reason or "") in (found or "")


@pytest.mark.parametrize(
    ("host", "address", "port", "is_own", "is_refused"),
    [
        ("api.example.com", "93.184.216.34", 443, False, False),
        ("api.example.com", "93.184.216.34", 443, True, True),
        ("api.example.com", "10.9.9.9", 443, False, True),
        ("api.example.com", "10.0.0.5", 443, False, False),
        ("api.example.com", "127.0.0.1", 443, True, True),
        ("db.internal", "10.9.9.9", 5432, False, False),
        ("db.internal", "127.0.0.1", 5432, True, False),
        ("db.internal", "93.184.216.34", 5432, True, False),
        ("db.internal", "10.9.9.9", 5433, False, True),
        ("a.corp.test", "10.9.9.9", 80, False, False),
        ("db.internal", "169.254.169.254", 5432, False, True),
        ("api.example.com", "169.254.169.254", 80, False, False),
        ("db.internal", "168.63.129.16", 5432, False, True),
        ("api.example.com", "fe80::1%eth0", 443, False, True),
    ],
)
def test_every_address_of_a_name_is_judged_by_itself(
    host: str, address: str, port: int, is_own: bool, is_refused: bool
) -> None:
    reason = Policy(allow_private=LISTED).address_refusal(host, address, port, is_own=is_own)

    assert (reason is not None) == is_refused, reason
    assert reason is None or (address not in reason and "EGRESS_ALLOW_PRIVATE" in reason)


API = ("api.example.com",)
DB = ("db.internal",)
PUBLIC = "93.184.216.34"


@pytest.mark.parametrize(
    ("policy", "address", "port", "names", "outcome"),
    [
        (Policy(), PUBLIC, 443, (), (PUBLIC, None)),
        (Policy(), PUBLIC, 443, API, ("api.example.com", None)),
        (Policy(), "10.9.9.9", 443, (), ("10.9.9.9", PRIVATE)),
        (Policy(), "10.9.9.9", 443, API, ("api.example.com", "api.example.com:443 is at a private address")),
        (Policy("none"), PUBLIC, 443, API, ("api.example.com", NOTHING)),
        (Policy(allow_private=LISTED), "10.9.9.9", 5432, DB, ("db.internal", None)),
        (Policy(allow_private=LISTED), "10.9.9.9", 5432, (), ("10.9.9.9", PRIVATE)),
        (Policy(allow_private=LISTED), "10.9.9.9", 5433, DB, ("db.internal", PRIVATE)),
        (Policy(allow_private=LISTED), "10.9.9.9", 5432, (*API, *DB), ("db.internal", None)),
        (Policy(allow_private=LISTED), "10.0.0.5", 443, (), ("10.0.0.5", None)),
        (Policy(allow_private=LISTED), "10.0.0.5", 443, API, ("api.example.com", None)),
        (Policy(allow_private=LISTED), "169.254.169.254", 5432, DB, ("db.internal", "link-local")),
        (Policy("allow", API), PUBLIC, 443, API, ("api.example.com", None)),
        (Policy("allow", API), PUBLIC, 443, (), (PUBLIC, f"{PUBLIC}:443 is not in network.hosts")),
        (Policy("allow", (*API, *DB)), "10.9.9.9", 443, API, ("api.example.com", PRIVATE)),
        (Policy("allow", ("api.example.com:443",)), PUBLIC, 443, API, ("api.example.com", None)),
        (
            Policy("allow", ("api.example.com:443",)),
            PUBLIC,
            80,
            API,
            ("api.example.com", "api.example.com:80 is not in"),
        ),
        (Policy("allow", ("a.test:1", "b.test:2")), PUBLIC, 1, ("b.test", "a.test"), ("a.test", None)),
        (
            Policy("allow", ("a.test:1", "b.test:2")),
            PUBLIC,
            3,
            ("b.test", "a.test"),
            ("b.test", "b.test:3 or a.test:3 is not in network.hosts"),
        ),
        (Policy("allow", ("*.example.com",)), PUBLIC, 443, API, ("api.example.com", None)),
        (Policy("allow", (PUBLIC,)), PUBLIC, 443, (), (PUBLIC, None)),
        (Policy("allow", DB, LISTED), "10.9.9.9", 5432, DB, ("db.internal", None)),
        (Policy("allow", (), LISTED), "10.0.0.5", 443, (), ("10.0.0.5", "not in network.hosts")),
        (Policy("allow", API, LISTED), "10.9.9.9", 5432, (), ("10.9.9.9", "not in network.hosts")),
    ],
)
def test_a_connection_is_judged_by_its_address_and_the_names_that_this_was_given_for(
    policy: Policy, address: str, port: int, names: tuple[str, ...], outcome: tuple[str, str | None]
) -> None:
    host, reason = outcome
    verdict = policy.judge(address, port, names)

    assert (verdict.host, verdict.refusal is None) == (host, reason is None), verdict
    assert (reason or "") in (verdict.refusal or "")


def test_an_address_of_the_host_itself_is_reached_only_where_it_is_listed() -> None:
    assert Policy().judge(PUBLIC, 443, API, is_own=True).refusal
    assert Policy(allow_private=LISTED).judge(PUBLIC, 5432, DB, is_own=True) == Verdict("db.internal")


@pytest.mark.parametrize(
    ("address", "is_given"),
    [(PUBLIC, True), ("10.9.9.9", True), ("169.254.169.254", True), ("169.254.169.253", False), ("127.0.0.2", True)],
)
def test_a_name_is_given_the_addresses_that_some_port_of_may_be_reached(address: str, is_given: bool) -> None:
    policy = Policy(allow_private=LISTED)

    assert (policy.address_refusal("db.internal", address, None) is None) == is_given
    assert policy.address_refusal("other.test", "10.9.9.9", None) == f"other.test is {PRIVATE}; {ALLOW_HINT}"


@pytest.mark.parametrize(
    ("policy", "name", "is_refused"),
    [
        (Policy(), "api.example.com", False),
        (Policy("none"), "api.example.com", True),
        (Policy("allow", ("api.example.com:443",)), "api.example.com", False),
        (Policy("allow", ("*.example.com",)), "api.example.com", False),
        (Policy("allow", ("example.com",)), "data.example.com", True),
    ],
)
def test_a_name_is_looked_up_only_if_it_may_be_connected_to(policy: Policy, name: str, is_refused: bool) -> None:
    assert (policy.name_refusal(name) is not None) == is_refused


@pytest.mark.parametrize(
    ("policy", "loopback"),
    [
        (Policy(), ()),
        (Policy(allow_private=LISTED), (("127.0.0.1", 6379),)),
        (
            Policy(allow_private=("localhost:80", "127.0.0.1:80", "127.9.9.9:81")),
            (("127.0.0.1", 80), ("127.9.9.9", 81)),
        ),
        (Policy("allow", ("localhost",), ("127.0.0.1:80", "127.0.0.2:80")), (("127.0.0.1", 80),)),
        (Policy("allow", ("example.com",), ("127.0.0.1:80",)), ()),
        (Policy("none", (), ("127.0.0.1:80",)), ()),
    ],
)
def test_the_hosts_loopback_is_what_the_operator_lists_and_the_spec_allows(
    policy: Policy, loopback: tuple[tuple[str, int], ...]
) -> None:
    assert policy.loopback == loopback


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("example.com", HostPattern("example.com")),
        ("EXAMPLE.com.:443", HostPattern("example.com", 443)),
        ("*.example.com:80", HostPattern("example.com", 80, below=True)),
        ("bücher.example", HostPattern("xn--bcher-kva.example")),
        ("10.0.0.5:1", HostPattern("10.0.0.5", 1)),
        ("FD00:0::5", HostPattern("fd00::5")),
        ("[fd00::5]", HostPattern("fd00::5")),
        ("[fd00::5]:443", HostPattern("fd00::5", 443)),
        ("localhost:80", HostPattern("127.0.0.1", 80)),
        ("_srv.example.com", HostPattern("_srv.example.com")),
    ],
)
def test_a_host_is_read_as_it_is_meant(text: str, pattern: HostPattern) -> None:
    assert parse_pattern(text) == pattern


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "missing"),
        (":80", "missing"),
        ("https://example.com", "URL"),
        ("example.com/path", "network"),
        ("10.0.0.0/8", "network"),
        ("me@example.com", "user"),
        ("*", "every host"),
        ("*:443", "every host"),
        ("a.*.example.com", "no name"),
        ("*example.com", "no name"),
        ("a b", "no name"),
        ("a\0", "no name"),
        ("-a.example.com", "no name"),
        ("a..b", "no name"),
        ("a" * 64 + ".example.com", "no name"),
        (".".join(["a" * 60] * 5), "no name"),
        ("example.com:", "no port"),
        ("example.com:0", "no port"),
        ("example.com:65536", "no port"),
        ("example.com:http", "no port"),
        ("127.1", "all four numbers"),
        ("0x7f000001", "all four numbers"),
        ("[fd00::5", "no address"),
        ("[example.com]:80", "no address"),
        ("[fd00::5]80", "no address"),
        ("fd00::5::1", "no name"),
    ],
)
def test_a_host_that_cannot_be_meant_is_refused_with_a_sentence(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        parse_pattern(text)


@given(st.text(max_size=60))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except ValueError:
        return
    assert normal(pattern.host) == pattern.host


def test_a_refusal_is_told_once_in_a_while_and_no_flood_of_them() -> None:
    notices = Notices()

    assert notices.is_news("a.test", 1, 0.0)
    assert not notices.is_news("a.test", 1, WINDOW_S - 1)
    assert notices.is_news("a.test", 2, 1.0)
    assert sum(notices.is_news("flood.test", port, 2.0) for port in range(1000)) == MAX_TARGETS - 2
    assert notices.is_news("a.test", 1, WINDOW_S)


def test_a_burst_passes_at_once_and_a_flood_evenly() -> None:
    pace = Pace(per_s=10.0, burst=5.0)

    assert [pace.delay_s(100.0) for _ in range(5)] == [0.0] * 5
    assert [round(pace.delay_s(100.0), 3) for _ in range(3)] == [0.1, 0.2, 0.3]
    assert [pace.delay_s(200.0) for _ in range(5)] == [0.0] * 5
    assert pace.delay_s(200.0) > 0
