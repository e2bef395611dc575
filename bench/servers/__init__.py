"""The processes under measurement, and stand-ins for those that are not."""
