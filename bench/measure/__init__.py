"""The measurements, one a module."""
