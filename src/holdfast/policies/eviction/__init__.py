"""What a free block is worth: smallest goes first."""
