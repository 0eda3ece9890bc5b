"""The terminal: thin commands over `suture.stitching` and `suture.aligners`. No maths here."""
