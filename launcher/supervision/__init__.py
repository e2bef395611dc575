"""Keeps Triton and the gateway running: who has died or stands still, and when it is started again."""
