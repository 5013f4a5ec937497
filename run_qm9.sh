#!/usr/bin/env bash
# Set up from nothing, train on QM9 with EDM's main_qm9.py, evaluate. ./run_qm9.sh --help says how.
set -euo pipefail

# The smoke run: 2,400 steps, about two minutes of training on two cores.
SMOKE_SLICE=(6400 512 512)
SMOKE_FLAGS=(--model symdiff_tiny --n_epochs 12 --test_epochs 11 --batch_size 32 --recipe fast --lr 2e-3 --decay 0.5
    --ema_decay 0.995 --diffusion_steps 500 --n_stability_samples 8 --seed 0)
SMOKE_SAMPLES=500

usage() {
    cat <<'END'
usage: ./run_qm9.sh [PRESET] [flags of main_qm9.py]
       ./run_qm9.sh --smoke [flags of main_qm9.py]

Makes a virtual environment, gets EDM and QM9, trains PRESET (symdiff) and evaluates it; what is done already is
not done again, and an unfinished training goes on. Results: outputs/NAME, NAME being --exp_name or the preset.

PRESET         symdiff, symdiff_star, symdiff_minus, symdiff_minus_minus, symdiff_h, symdiff_pca,
               symdiff_pca_f, dit, dit_aug;
               dit_ft, dit_ft_freeze, a SymDiff that starts from a trained dit: --init_from outputs/dit;
               symdiff_small, symdiff_tiny, symdiff_h_tiny, dit_tiny, dit_aug_tiny, dit_ft_tiny,
               dit_ft_freeze_tiny for CPUs;
               edm, edm_plus, edm_plus_plus, EDM's own EGNN; edm_tiny, small enough for CPUs
--smoke        a first look: a small SymDiff on part of QM9, about five minutes on two CPU cores -> outputs/smoke
--n_samples N  molecules to sample in the evaluation (10000; --smoke: 500)
--init_from P  weights to start from: a run's folder (its moving average) or a file of weights
--exp_name, --n_epochs, --batch_size, --lr, ... : any flag of main_qm9.py; it wins over the preset's

environment:
EDM_REPO       path or URL of any clone or mirror of EDM, if GitHub is out of reach
DATADIR        folder for QM9 (data)
PYTHON         the Python, 3.11 to 3.14, to make the virtual environment with (python3)
SYMDIFF_VENV   where the virtual environment is (.venv)
END
}

# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/scripts/setup.sh"

read_preset "$@"
set -- ${WORDS[@]+"${WORDS[@]}"}
find_python
RESUME=auto
WANDB=
if [ -n "$SMOKE" ]; then
    NAME=smoke
    DATADIR=$(from_caller "${DATADIR:-data}")/smoke
    N_SAMPLES=$SMOKE_SAMPLES
    PRESET_FLAGS=("${SMOKE_FLAGS[@]}")
else
    NAME=$PRESET
    DATADIR=$(from_caller "${DATADIR:-data}")
    N_SAMPLES=10000
    preset_flags "$PRESET"
fi
parse_flags "$@"
DATA_FLAGS=(--datadir "$DATADIR")

EDM=1
if [ -n "$SMOKE" ]; then
    try_edm || EDM=
else
    # shellcheck disable=SC2119  # its argument is no argument of ours
    require_edm
fi
install data
# Other folders have to be there: their names may be mistyped.
case $DATADIR in data | data/*) mkdir -p data ;; esac
if [ -n "$SMOKE" ]; then
    watched "$VENV_PYTHON" -m symdiff_plugin.data.qm9 --datadir "$DATADIR" --slice "${SMOKE_SLICE[@]}"
else
    watched "$VENV_PYTHON" -m symdiff_plugin.data.qm9 --datadir "$DATADIR"
fi

if [ -z "$EDM" ]; then
    OUT=outputs/smoke_without_edm
    shout "THIS IS NOT EDM: $EDM_FAULT" "The standalone example runs instead."
    if [ -e "$OUT/metrics.json" ]; then
        say "done before"
    else
        watched "$VENV_PYTHON" examples/standalone_qm9.py --datadir "$DATADIR" --out "$OUT" --because "$EDM_FAULT"
    fi
    say "metrics.json, molecules.xyz and samples.png are in $OUT (NOT EDM)"
    exit 0
fi

[ -n "$WANDB" ] || PRESET_FLAGS+=(--no_wandb)
train main_qm9.py "${PRESET_FLAGS[@]}" ${FLAGS[@]+"${FLAGS[@]}"}
evaluate --n_samples "$N_SAMPLES"
say "configuration, checkpoints, learning curves, metrics.json, molecules and samples.png are in outputs/$NAME"
