"""Evidence in one file: an answer of `why` with the bytes, digests and events that prove it, to be checked anywhere."""
