"""MCP: tools for agents."""
