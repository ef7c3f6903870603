"""What `memserve compress` says before any work: methods read, checks that refuse, the exit code."""

from __future__ import annotations
