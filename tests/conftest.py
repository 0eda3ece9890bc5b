"""Threads that spin while they wait make tests crawl on a shared machine; this must be said before torch is loaded."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
