"""Feed text in, indicators out: fetch, parse, normalise, guard."""
