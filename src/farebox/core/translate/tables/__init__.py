"""What becomes of each member of an order, a module a format."""
