"""A retrieval gallery and its move to another encoder: what each strategy is worth, and the move itself."""
