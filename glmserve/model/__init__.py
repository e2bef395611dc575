"""The model family's own rules: configuration, image sizes, positions, chat template, tokens and their meaning."""
