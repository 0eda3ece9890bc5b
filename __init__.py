"""suture: post-hoc alignment of latent spaces, model stitching and gallery upgrades, from frozen embedding dumps.

Nothing is imported here: `suture --help` must not load torch, and pytest imports this file as a bare module.
The three rooms are `suture.aligners` (spaces and maps), `suture.stitching` (using a map) and `suture.cli`.
"""

__version__ = "0.1.0"
