"""The export's commands, one module each: options in, one function called, and what is printed."""
