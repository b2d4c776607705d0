"""A proxy before an MCP server that answers repeated reads from memory."""
