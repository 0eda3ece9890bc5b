"""`suture gallery`: the group of commands that move a retrieval gallery to another encoder. One thin file a command."""

from __future__ import annotations

from ..group import group
from .apply import apply
from .backfill import backfill
from .estimate import estimate
from .look import inspect
from .moving import retire, rollback, status, switch, verify
from .plan import plan
from .sample import sample

__all__ = ["gallery"]

gallery = group(
    "gallery",
    "Know whether to move a retrieval gallery to a new encoder, and move it.",
    sample,
    estimate,
    inspect,
    plan,
    apply,
    status,
    verify,
    switch,
    rollback,
    backfill,
    retire,
)
