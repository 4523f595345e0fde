"""`python -m controlplane.cli`: the same as `corral`."""

from controlplane.cli import main

main()
