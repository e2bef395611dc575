"""The model at its real size, through every step from random weights to answers, on the machine at hand."""
