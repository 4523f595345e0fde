"""What an address is by its number."""

from __future__ import annotations

import pytest

from controlplane.core.addresses import kind_of


@pytest.mark.parametrize(
    "address", ["100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254", "FD20:00CE:0::0254"]
)
def test_where_a_cloud_hands_out_credentials_is_no_private_address(address: str) -> None:
    assert kind_of(address) == "metadata"


@pytest.mark.parametrize("address", ["fd00:ec2::253", "fd20:ce::255"])
def test_its_neighbours_are_private(address: str) -> None:
    assert kind_of(address) == "private"
