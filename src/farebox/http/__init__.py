"""Bytes in and out: what every endpoint is served with."""
