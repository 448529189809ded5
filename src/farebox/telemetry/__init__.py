"""What an operator sees of a running gateway: metrics, a line in the log for each order, spans. Never a prompt or a
secret."""
