"""A small GLM-4.6V that really sees: drawn pictures, questions about them, and the checkpoint trained on both."""
