"""One module a wire format: bytes to rows."""
