"""Rounds the decoder's layers to 4 bits by what they are given: calibrated on pictures and text, layer after layer"""
