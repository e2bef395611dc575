"""What other servers' own tests ask of a server, each with a check of ours, or with the reason why it is declined."""
