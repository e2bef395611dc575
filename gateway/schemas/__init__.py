"""Request bodies, checked field by field, and the one conversation they all become."""
