#!/bin/sh
# The one install step of every image, run in the definition's %post with the image's Python.
#
#   install.sh --lock FILE [--torch FILE] [--wheels FOLDER] [--pyg-lib]
#
# --lock FILE      the pinned packages, e.g. envs/container-current.txt; all of them, without torch
# --torch FILE     pins torch, where the base image has none
# --wheels FOLDER  take every package from this folder; without it, from pip's package index
# --pyg-lib        PyG's own sampler too, from PyG's wheels for the torch that is there
#
# pip only, and wheels only: nothing is compiled.
set -eu

lock="" torch="" wheels="" pyg_lib=""
while [ $# -gt 0 ]; do
    case $1 in
        --lock) lock=$2; shift 2 ;;
        --torch) torch=$2; shift 2 ;;
        --wheels) wheels=$2; shift 2 ;;
        --pyg-lib) pyg_lib=yes; shift ;;
        *) echo "error: install.sh knows no $1: see its first lines" >&2; exit 2 ;;
    esac
done
[ -n "$lock" ] || { echo "error: install.sh needs --lock FILE" >&2; exit 2; }

PYTHONNOUSERSITE=1
PIP_DISABLE_PIP_VERSION_CHECK=1
# The image's Python is the image's alone: some bases mark theirs as the system's.
PIP_BREAK_SYSTEM_PACKAGES=1
PIP_ROOT_USER_ACTION=ignore
export PYTHONNOUSERSITE PIP_DISABLE_PIP_VERSION_CHECK PIP_BREAK_SYSTEM_PACKAGES PIP_ROOT_USER_ACTION

# --no-deps: the lock is complete, and the base's torch stays as it is. `pip check` proves both.
install() {
    python -m pip install --quiet --no-cache-dir --no-compile --no-deps --only-binary :all: \
        ${wheels:+--no-index --find-links "$wheels"} "$@"
}

[ -z "$torch" ] || install -r "$torch"
install -r "$lock"
if [ -n "$pyg_lib" ]; then
    # PyG serves one set of wheels for each minor version of torch and build (cpu, cu121, ...).
    build=$(python -c 'import torch
version = ".".join(torch.__version__.split("+")[0].split(".")[:2])
cuda = torch.version.cuda
print(version + ".0+" + ("cu" + cuda.replace(".", "") if cuda else "cpu"))')
    install pyg-lib --find-links "https://data.pyg.org/whl/torch-$build.html"
fi

python -m pip check
python -c "import numba, numpy, pyarrow, torch, torch_geometric"
python -m pip freeze > /opt/sagebench/versions.txt
