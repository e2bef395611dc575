"""What the service is measured against: naive servers and the bare engine."""
