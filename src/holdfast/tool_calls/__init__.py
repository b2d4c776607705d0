"""What ended a turn: tool calls found in the text of an answer."""
