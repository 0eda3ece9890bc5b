"""Using maps: dumps in and out, applying and evaluating a map on them. Never sees the terminal."""
