"""Calling an instance by hand: forms from schemas, one call as a conversation, its result, and what is remembered.

All but `conversation` and `keeping` is pure.
"""
