"""Builds pylisten and its C part; everything else about the project is in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["pylisten/_shm_build.py:ffibuilder"])
