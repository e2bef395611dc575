"""What is known of each request: log line, metrics, trace and audit record."""
