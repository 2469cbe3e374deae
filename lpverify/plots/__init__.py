"""Pictures of what was measured. Every module draws one kind of picture from arrays or rows, and computes nothing."""
