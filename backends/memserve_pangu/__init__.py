"""Huawei Pangu over HTTP."""
