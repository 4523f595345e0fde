"""`python -m controlplane.deploy.toolchain`: what a control plane would find on this host, as `GET /runtimes` says it.

For `corral doctor`, where no control plane runs. Changes nothing.
"""

from __future__ import annotations

import json
import os
import sys

from attrs import asdict

from controlplane.deploy.toolchain import of_host


def main() -> None:
    """Print one JSON document."""
    found = of_host(by_others=os.geteuid() == 0, host_path=os.environ.get("PATH", ""))
    json.dump({"runtimes": [asdict(runtime) for runtime in found.survey()]}, sys.stdout)


if __name__ == "__main__":
    main()
