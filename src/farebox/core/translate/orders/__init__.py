"""Orders: read from each format into the neutral form, and written from it."""
