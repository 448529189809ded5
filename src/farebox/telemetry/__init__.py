"""What an operator sees of a running gateway: metrics, a line of log an order, spans. No prompt, no secret."""
