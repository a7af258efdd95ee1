"""Where the evidence for an emotion is, and whether the score needs it."""
