"""Versions are names: which are known, and what each of them does."""

from __future__ import annotations

import pytest

from controlplane.protocol import versions


@pytest.mark.parametrize("version", versions.LEGACY_VERSIONS)
def test_a_known_legacy_version_is_agreed_on(version: str) -> None:
    assert versions.negotiate(version) == version
    assert versions.is_legacy(version)


@pytest.mark.parametrize("requested", [None, "", "2024-10-07", "2025-11-26", "9999-12-31", "2026-07-28", "2025-06-18 "])
def test_any_other_version_is_answered_with_the_newest_legacy_one(requested: str | None) -> None:
    assert versions.negotiate(requested) == "2025-11-25"
    assert not versions.is_legacy(requested)


def test_batches_belong_to_one_version_and_primed_streams_to_the_newest() -> None:
    assert [v for v in versions.SUPPORTED if versions.may_batch(v)] == ["2025-03-26"]
    assert [v for v in versions.SUPPORTED if versions.primes_streams(v)] == ["2025-11-25"]
    assert not versions.may_batch(None)
    assert not versions.primes_streams("2025-11-26")


def test_the_modern_version_is_served_first() -> None:
    assert versions.SUPPORTED == ("2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
