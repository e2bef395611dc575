"""What the gateway, the export and Triton's models share: the model's own rules and the shapes they agree on."""
