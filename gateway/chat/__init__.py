"""One conversation from images and text to an answer, whichever route it came by."""
