"""Upstreams: where orders are served."""
