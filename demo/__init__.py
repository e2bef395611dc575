"""The demo model: a small GLM-4.6V, and the drawn pictures and questions that it was trained on."""
