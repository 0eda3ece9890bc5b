"""The packaged demo: real embeddings of WordNet glosses by two sentence encoders (see NOTICE)."""
