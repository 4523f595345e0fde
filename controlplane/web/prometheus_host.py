"""The host's part of `/metrics`: what an operator asks first when everything is slow. For administrators."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path

    from controlplane.web.exposition import Exposition


def host_facts(page: Exposition, home: Path) -> None:
    """Add them. Everything is read from memory of the kernel's, the disk's two figures included."""
    times, memory = psutil.cpu_times(), psutil.virtual_memory()
    busy = [({"mode": mode}, getattr(times, mode)) for mode in ("user", "system", "iowait", "idle")]
    page.family("corral_host_cpu_seconds_total", "counter", "Time of all the host's cores, by what they did.", busy)
    page.one("corral_host_cpus", "gauge", "The host's cores.", os.cpu_count() or 1)
    page.one("corral_host_load1", "gauge", "The host's load, over one minute.", os.getloadavg()[0])
    page.one("corral_host_memory_bytes", "gauge", "The host's memory.", memory.total)
    page.one("corral_host_memory_available_bytes", "gauge", "What of it can still be had.", memory.available)
    try:
        disk = os.statvfs(home)
    except OSError:  # the disk is not there: its series end, which an alert can tell
        return
    page.one("corral_home_size_bytes", "gauge", "The file system of CORRAL_HOME.", disk.f_blocks * disk.f_frsize)
    page.one("corral_home_available_bytes", "gauge", "What of it can still be had.", disk.f_bavail * disk.f_frsize)
