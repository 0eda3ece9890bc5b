"""Moving a gallery to a new encoder, one idempotent fragment at a time; the old gallery is never written."""
