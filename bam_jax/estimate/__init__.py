"""Estimates the time, memory and disk that unfinished runs still need."""
