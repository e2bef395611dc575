"""The gateway's addresses: thin functions between HTTP and the service."""
