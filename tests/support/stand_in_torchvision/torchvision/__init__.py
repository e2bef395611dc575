"""What transformers' video processors use of torchvision, for machines where its wheel does not fit torch's.

torchvision resizes bytes with this function of torch's, and with these arguments.
"""

__version__ = "0.28.0"
