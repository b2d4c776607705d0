"""Turn ends: tool calls and answers, read from the text of an output."""
