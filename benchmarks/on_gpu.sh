#!/usr/bin/env bash
# Everything that a GPU allows, in steps of at most ten minutes, each with a few small files in OUT.
#
#     benchmarks/on_gpu.sh pack FER2013 PHOTOGRAPHS    # here: what the machine lacks, into gpu/1, gpu/2, ...
#     benchmarks/on_gpu.sh keep OUT                    # there, once for each of these: put it by
#     benchmarks/on_gpu.sh STEP OUT                    # there: one of the steps below, in this order
#
# FER2013 is a folder with fer2013.csv, PHOTOGRAPHS one with Tiny ImageNet's train/ and val/. A machine
# with a network and these data needs neither pack nor keep: `pip install -e . -e examples/fer2013`, and
# FER2013 and PHOTOGRAPHS in the environment.
#
#     tests            the test suite on the GPU
#     bench            methods and metrics beside their peers
#     throughput       what a run over a data set gets through
#     pretrain         VGG19-BN on Tiny ImageNet, and the plain VGG19 that it folds into
#     config5          configuration 5, 300 epochs
#     configurations   configurations 1 to 4 and their controls
#     seeds            the same with two more seeds
#
# A training that ten minutes do not end is resumed by the same step. QUICK=1 DEVICE=cpu rehearses a
# step with tiny settings; its numbers mean nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

step=${1:?the step}
work=${WORK:-/tmp/camlens-gpu}
device=${DEVICE:-cuda}
quick=${QUICK:+1}
seconds=${SECONDS_A_STEP:-560}
python=${PYTHON:-python3}
faces=${FER2013:-$work/fer2013}
photographs=${PHOTOGRAPHS:-$work/photographs}

# Wheels that the machine may lack; the others it has.
wheels=(beartype captum cleanlab imagehash jaxtyping kornia kornia-rs PyWavelets
    sortedcontainers termcolor torchcam zennit)

pack() {
    rm -rf gpu
    mkdir -p gpu/1/wheels gpu/1/fer2013
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --dest gpu/1/wheels "${wheels[@]}"
    "$python" -m pip wheel --quiet --no-deps --wheel-dir gpu/1/wheels grad-cam  # comes as source
    xz --threads 0 --stdout "$1/fer2013.csv" >gpu/1/fer2013/fer2013.csv.xz
    # Photographs are JPEG: they do not shrink, so they travel in parts.
    mkdir gpu/parts
    tar --create --directory "$2" train val | split --bytes 45M - gpu/parts/photographs.tar.
    number=1
    for part in gpu/parts/*; do
        number=$((number + 1))
        mkdir "gpu/$number"
        mv "$part" "gpu/$number"
    done
    rmdir gpu/parts
    du -sh gpu/*
}

keep() {
    mkdir -p "$work"
    cp -r gpu/*/. "$work"
    if ls "$work"/wheels/*.whl >/dev/null 2>&1; then
        "$python" -m pip install --quiet --no-index --no-deps --target "$work/site" --upgrade "$work"/wheels/*.whl
        rm -r "$work/wheels"
    fi
    if [ -f "$faces/fer2013.csv.xz" ]; then xz --decompress --force "$faces/fer2013.csv.xz"; fi
    du -sh "$work"/* | tee "$OUT/kept.txt"
}

# Without a network the packages are not installed: their sources are on the path.
export PYTHONPATH="$PWD/src:$PWD/examples/fer2013/src:$work/site${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1

# Run a command for what is left of the step's seconds, and keep what it says.
say() {
    echo "\$ $*" | tee -a "$OUT/$step.txt"
    status=0
    left=$((seconds - SECONDS))
    timeout "$((left > 0 ? left : 1))" "$@" 2>&1 | tee -a "$OUT/$step.txt" || status=$?
    if [ "$status" = 124 ]; then
        echo "stopped after $seconds s: run the step again" | tee -a "$OUT/$step.txt"
        exit
    fi
    return "$status"
}

# Train and measure one configuration; what is finished is not trained again.
#     study CONFIGURATION RUN ARGUMENTS...
study() {
    configuration=$1
    run=$2
    shift 2
    say "$python" -m fer2013 train "$configuration" --data "$faces" --device "$device" --out "runs/$run" "$@"
    record=(--record)
    if [ -n "$quick" ]; then record=(); fi
    if [ ! -d "runs/$run/evaluation" ]; then
        say "$python" -m fer2013 evaluate --weights "runs/$run/$configuration.safetensors" --data "$faces" \
            --device "$device" --split PublicTest "${record[@]}"
    fi
    # The figures, as they come with the package: unpack them there.
    tar --create --gzip --file "$OUT/measured.tar.gz" --directory \
        "$tree/examples/fer2013/src/fer2013/evaluation" measured
}

# Configurations 1 to 4, from Tiny ImageNet's photographs, and what they are compared with.
configurations() {
    seed=$1
    suffix=$2
    short=${quick:+--epochs 1}
    for name in config1 config2 config2-unweighted config3 config3-random config4; do
        start="--weights $work/runs/pretrain/vgg19.safetensors"
        if [ "$name" = config3-random ]; then start=""; fi
        # shellcheck disable=SC2086
        study "$name" "$name$suffix" --seed "$seed" $start $short
    done
    say "$python" -m fer2013 compare --runs runs --out compare
}

if [ "$step" = pack ]; then
    pack "${2:?a folder with fer2013.csv}" "${3:?a folder with train/ and val/}"
    exit
fi
OUT=${2:?the folder for what is found}
mkdir -p "$OUT" "$work/runs"
OUT=$(cd "$OUT" && pwd)
tree=$PWD
if [ "$step" != keep ]; then
    "$python" -c "import platform, torch; d = torch.device('$device'); print(torch.__version__, platform.processor(),
        torch.cuda.get_device_name() if d.type == 'cuda' else d)" | tee "$OUT/machine.txt"
fi
case $step in
    keep) keep ;;
    tests)
        say "$python" -m pytest --device "$device" -m "not slow and not exhaustive" -q -p no:cacheprovider \
            "$(if [ -n "$quick" ]; then echo tests/explainers/test_cams.py; else echo tests; fi)"
        ;;
    bench)
        say "$python" benchmarks/run.py --device "$device" --out "$OUT/results.md" ${quick:+--quick} \
            --only flops time memory precision growth
        ;;
    throughput)
        say "$python" benchmarks/dataset_rates.py --device "$device" \
            --images "$(if [ -n "$quick" ]; then echo 32; else echo 2048; fi)"
        ;;
    pretrain)
        cd "$work"
        if [ ! -d "$photographs" ]; then
            mkdir -p photographs.new
            cat photographs.tar.* | tar --extract --directory photographs.new
            mv photographs.new "$photographs"
        fi
        say "$python" -m fer2013 pretrain "$photographs" --device "$device" --out runs/pretrain \
            --epochs "${quick:-60}" ${quick:+--limit 256}
        ;;
    config5)
        cd "$work"
        study config5 config5 --weights runs/pretrain/vgg19_bn.safetensors --epochs "${quick:-300}"
        cp runs/config5/{history.csv,curves.png} "$OUT"
        ;;
    configurations)
        cd "$work"
        configurations 0 ""
        ;;
    seeds)
        cd "$work"
        for seed in 1 2; do configurations $seed -seed$seed; done
        ;;
    *)
        echo "expected a step named in $tree/benchmarks/on_gpu.sh, got $step" >&2
        exit 2
        ;;
esac
