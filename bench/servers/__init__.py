"""The processes under measurement, and fakes for those that are not."""
