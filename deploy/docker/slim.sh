#!/bin/sh
# Takes out of a virtual environment what only builds and tests need: slim.sh FOLDER MODULE...
# The byte code of the modules named, and of all they import, is made here once: a read-only root could not
# keep it, and every start would compile it again.
set -eu
folder=$1
shift
site=$(echo "$folder"/lib/python3.*/site-packages)
rm -rf "$site"/torch/include "$site"/torch/share "$site"/torch/test
# Static archives, and tests that packages carry along; numpy.testing imports one of numpy's.
find "$site" -name '*.a' -type f -delete
find "$site" -type d -name tests -not -path '*/numpy/*' -prune -exec rm -rf {} +
rm -rf "$site"/pip "$site"/pip-*.dist-info "$folder"/bin/pip*
find "$folder" -type d -name __pycache__ -prune -exec rm -rf {} +
for module in "$@"; do
    "$folder"/bin/python -c "import $module"
done
