"""What may keep a mount from working well, found without making one, and what to do about it."""
