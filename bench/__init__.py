"""`python -m bench`: what Corral costs, beside its peers, in one run on one machine. See docs/reference/performance.md."""
