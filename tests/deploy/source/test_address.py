"""Which hosts may be fetched from, what is connected to, and what is said of those that may not."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio

from controlplane.deploy.source import address
from controlplane.deploy.source.address import Egress, Route, is_allowed, resolve, route_to
from controlplane.errors import SourceRejected


class Names:
    """A resolver that answers each question with the next of its answers; counts the questions."""

    def __init__(self, *answers: tuple[str, ...] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int, **_options: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        self.asked.append(host)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [(socket.AF_INET6 if ":" in ip else socket.AF_INET, 1, 6, "", (ip, port)) for ip in answer]


PUBLIC = ["93.184.216.34", "8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:2800:220:1::1", "2a00:1450::1"]
PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1"),
    *("198.18.0.1", "::1", "fc00::1", "fd12:3456::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"),
]
NEVER = [
    *("0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1"),
    *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("100.100.100.200", "168.63.129.16", "fd00:ec2::254", "::", "::7f00:1", "::ffff:169.254.169.254"),
    *("::ffff:0:127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "fe80::1", "fe80::1%lo", "2606:4700::1%eth0"),
    *(
        "fec0::1",
        "ff02::1",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "100::1",
        "4000::1",
    ),
]


@pytest.mark.parametrize("ip", PUBLIC)
def test_a_public_address_is_allowed(ip: str) -> None:
    assert is_allowed(ip)
    assert is_allowed(ip, allow_private=True)


def test_a_public_address_as_a_host_without_ipv4_sees_it_is_allowed() -> None:
    assert is_allowed("64:ff9b::5db8:d822")


@pytest.mark.parametrize("ip", PRIVATE)
def test_a_private_address_needs_the_operators_leave(ip: str) -> None:
    assert not is_allowed(ip)
    assert is_allowed(ip, allow_private=True)


@pytest.mark.parametrize("ip", NEVER)
def test_some_addresses_are_never_allowed(ip: str) -> None:
    assert not is_allowed(ip)
    assert not is_allowed(ip, allow_private=True)


async def test_a_name_becomes_the_addresses_that_were_judged() -> None:
    names = Names(("8.8.8.8", "2a00:1450::1", "8.8.8.8"))
    assert await resolve("x.example", 443, allow_private=False, resolver=names) == ("8.8.8.8", "2a00:1450::1")


@pytest.mark.parametrize("answer", [("127.0.0.1",), ("8.8.8.8", "10.0.0.1"), ("8.8.8.8", "::ffff:127.0.0.1")])
async def test_one_private_address_among_public_ones_is_enough_to_refuse(answer: tuple[str, ...]) -> None:
    with pytest.raises(SourceRejected) as refused:
        await resolve("x.example", 443, allow_private=False, resolver=Names(answer))
    assert "x.example" in refused.value.detail
    assert answer[-1] not in refused.value.detail
    assert "SOURCE_ALLOW_PRIVATE" in (refused.value.hint or "")


async def test_an_address_beyond_those_that_are_tried_is_judged_too() -> None:
    answer = tuple(f"8.8.8.{n}" for n in range(40))
    assert len(await resolve("x.example", 443, allow_private=False, resolver=Names(answer))) == address.MAX_ADDRESSES
    with pytest.raises(SourceRejected):
        await resolve("x.example", 443, allow_private=False, resolver=Names((*answer, "10.0.0.1")))


@pytest.mark.parametrize(
    "spelling",
    [
        *("127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1", "127.0.0.1", "localhost", "::1"),
        *("::ffff:127.0.0.1", "0", "0.0.0.0", "::", "169.254.169.254", "2852039166", "0xa9fea9fe", "fe80::1%lo"),
    ],
)
async def test_however_this_host_is_spelled_the_systems_own_resolver_does_not_hide_it(spelling: str) -> None:
    with pytest.raises(SourceRejected):
        await resolve(spelling, 443, allow_private=False)


@pytest.mark.parametrize("trouble", [socket.gaierror(-2, "no such name"), UnicodeError("label too long"), OSError(5)])
async def test_a_name_that_leads_nowhere_is_refused_in_a_sentence(trouble: Exception) -> None:
    with pytest.raises(SourceRejected, match=r"x\.example cannot be found"):
        await resolve("x.example", 443, allow_private=False, resolver=Names(trouble))
    with pytest.raises(SourceRejected, match="no address"):
        await resolve("x.example", 443, allow_private=False, resolver=Names(()))


async def test_a_resolver_that_does_not_answer_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async def silent(*_args: Any, **_options: Any) -> list[Any]:
        await trio.sleep_forever()
        return []

    with pytest.raises(SourceRejected, match="within 10 s"):
        await resolve("x.example", 443, allow_private=False, resolver=silent)


async def test_a_route_is_found_by_asking_once() -> None:
    names = Names(("8.8.8.8",), ("127.0.0.1",))
    assert await route_to("x.example", 443, Egress(resolver=names)) == Route(addresses=("8.8.8.8",))
    assert names.asked == ["x.example"]


async def test_behind_a_proxy_a_name_is_the_proxys_to_judge() -> None:
    names = Names()
    egress = Egress(environ={"HTTPS_PROXY": "http://proxy.example:3128"}, resolver=names)
    assert (await route_to("x.example", 443, egress)).proxy == "http://proxy.example:3128"
    assert names.asked == []


async def test_behind_a_proxy_a_private_address_is_still_refused() -> None:
    egress = Egress(environ={"HTTPS_PROXY": "http://proxy.example:3128"}, resolver=Names())
    for host in ("127.0.0.1", "169.254.169.254", "::1"):
        with pytest.raises(SourceRejected):
            await route_to(host, 443, egress)


async def test_a_host_that_is_exempt_from_the_proxy_is_judged_here() -> None:
    environ = {"https_proxy": "proxy.example:3128", "no_proxy": "internal.example,10.0.0.1"}
    egress = Egress(environ=environ, resolver=Names(("10.0.0.1",)))
    with pytest.raises(SourceRejected):
        await route_to("git.internal.example", 443, egress)
    assert (await route_to("other.example", 443, egress)).proxy == "http://proxy.example:3128"


async def test_a_proxy_that_cannot_be_used_is_named_without_its_password() -> None:
    egress = Egress(environ={"ALL_PROXY": "socks5://ada:s3cr3t@proxy.example"})
    with pytest.raises(SourceRejected, match="proxy") as refused:
        await route_to("x.example", 443, egress)
    assert "s3cr3t" not in refused.value.detail + repr(egress)
