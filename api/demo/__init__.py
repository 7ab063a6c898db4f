"""The demonstration: a whole job through the public API, told on a terminal."""
