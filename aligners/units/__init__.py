"""Units and subspaces: which dims of two spaces correspond, what is shared, and spaces put in a useful order."""
