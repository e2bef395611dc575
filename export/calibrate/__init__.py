"""Rounds the decoder's layers to 4 bits by calibration on images and text, layer after layer."""
