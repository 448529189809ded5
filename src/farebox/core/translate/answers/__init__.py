"""Whole answers: to and from the neutral form, a module a format."""
