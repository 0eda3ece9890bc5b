"""Linear methods: each is solved from `Moments` alone."""
