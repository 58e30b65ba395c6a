#!/bin/sh
# Makes a virtual environment ready to be shipped in an image: `seal_venv.sh /opt/venv`.
# It loses what only installing and developing needs, and gains byte code that holds whatever happens to the files'
# times: in a container nothing is written, so what is not compiled here would be compiled at each start.
set -eu

venv=$1
packages=$venv/lib/python3.11/site-packages

"$venv/bin/python" -m pip uninstall --quiet --yes setuptools pip
find "$packages" -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -rf {} +
# C headers, stubs for editors, and sources that were compiled.
find "$packages" -depth -type d -path '*/include' -exec rm -rf {} +
find "$packages" -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' -o -name '*.a' \) \
    -delete
# A neural model inside jieba, for a mode that needs another framework.
rm -rf "$packages/jieba/lac_small"
# torch's own tests and build files.
rm -rf "$packages/torch/test" "$packages/torch/bin" "$packages/torch/share" "$packages/torchgen" "$packages/functorch"
"$venv/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$packages"
