"""More than two spaces: one alignment with a map for each into a shared space."""
