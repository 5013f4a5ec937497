#!/usr/bin/env bash
# Set up from nothing, train on GEOM-Drugs with EDM's main_geom_drugs.py, evaluate. ./run_geom.sh --help says how.
set -euo pipefail

# The smoke run: 150 molecules of RDKit's own tables, three conformers each; 1,610 steps, some minutes on two cores.
SMOKE_MOLECULES=150
SMOKE_FLAGS=(--model symdiff_tiny --split molecule --sequential --n_epochs 70 --test_epochs 1000 --batch_size 16 --recipe fast
    --ema_decay 0.995 --diffusion_steps 500 --n_stability_samples 4 --seed 0)
SMOKE_SAMPLES=200

usage() {
    cat <<'END'
usage: ./run_geom.sh [PRESET] [--archive FILE] [flags of main_geom_drugs.py]
       ./run_geom.sh --smoke [flags of main_geom_drugs.py]

Makes a virtual environment, gets EDM, makes GEOM-Drugs' data set from its archive, trains PRESET (symdiff) and
evaluates it; what is done already is not done again, and an unfinished conversion or training goes on.
Results: outputs/NAME, NAME being --exp_name or geom_PRESET.

PRESET            as for ./run_qm9.sh; of EDM's own EGNN: edm, with the settings of its README, and edm_tiny
--archive FILE    drugs_crude.msgpack (50 GB unpacked), from
                  https://dataverse.harvard.edu/dataset.xhtml?persistentId=doi:10.7910/DVN/JNGTDF
                  needed once: it is converted into DATADIR/geom/geom_drugs_30.npy, which EDM reads (13 GB)
--data_file FILE  another data set in that format, such as one made of your own molecules by
                  python -m symdiff_plugin.data.geom own
--split WHICH     official: EDM's, by conformer, for GEOM-Drugs itself (the default); molecule: drawn from --split_seed
                  by molecule, for any data set
--smoke           a first look: a small SymDiff on conformers that RDKit makes on the spot, some minutes on two CPU
                  cores -> outputs/geom_smoke
--n_samples N     molecules to sample in the evaluation (10000; --smoke: 200)
--init_from P     weights to start from: a run's folder (its moving average) or a file of weights
--exp_name, --n_epochs, --batch_size, --sequential, ... : any flag of main_geom_drugs.py; it wins over the preset's

environment:
EDM_REPO       path or URL of any clone or mirror of EDM, if GitHub is out of reach
DATADIR        folder for the data (data)
PYTHON         the Python, 3.11 to 3.14, to make the virtual environment with (python3)
SYMDIFF_VENV   where the virtual environment is (.venv)
END
}

# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/scripts/setup.sh"

read_preset "$@"
set -- ${WORDS[@]+"${WORDS[@]}"}
ARCHIVE=
DATA_FILE=
SPLIT=official
REST=()
while [ $# -gt 0 ]; do
    case $1 in
        --archive | --data_file | --split)
            [ $# -gt 1 ] || die 2 "$1 needs a value"
            set -- "$1=$2" "${@:3}"
            continue
            ;;
        --archive=*) ARCHIVE=$(from_caller "${1#*=}") ;;
        --data_file=*) DATA_FILE=$(from_caller "${1#*=}") ;;
        --split=*) SPLIT=${1#*=} ;;
        --arch* | --data_* | --spl | --spli) die 2 "write ${1%%=*} in full: --archive, --data_file or --split" ;;
        *) REST+=("$1") ;;
    esac
    shift
done

find_python
RESUME=auto
WANDB=
NAME=geom_$PRESET
N_SAMPLES=10000
DATADIR=$(from_caller "${DATADIR:-data}")
if [ -n "$SMOKE" ]; then
    [ -z "$ARCHIVE$DATA_FILE" ] || die 2 "--smoke makes data of its own: leave out --archive and --data_file"
    NAME=geom_smoke
    DATADIR=$DATADIR/geom_smoke
    N_SAMPLES=$SMOKE_SAMPLES
    SPLIT=molecule
    PRESET_FLAGS=("${SMOKE_FLAGS[@]}")
else
    preset_flags "$PRESET" geom
fi
parse_flags ${REST[@]+"${REST[@]}"}
case $SPLIT in
    official | molecule) ;;
    *) die 2 "--split must be official or molecule, not '$SPLIT'" ;;
esac
[ -z "$DATA_FILE" ] || [ -z "$ARCHIVE" ] || die 2 "--archive is converted into DATADIR/geom: give it or --data_file"
FOLDER=$DATADIR/geom
[ -n "$DATA_FILE" ] || DATA_FILE=$FOLDER/geom_drugs_30.npy
if [ -z "$SMOKE" ] && [ ! -e "$DATA_FILE" ]; then
    [ -n "$ARCHIVE" ] || die 2 "no $DATA_FILE: name GEOM's drugs_crude.msgpack with --archive, see --help"
    [ -e "$ARCHIVE" ] || die 2 "no $ARCHIVE: download drugs_crude.msgpack of GEOM first, see --help"
fi

if [ "$SPLIT" = official ] && [ -e "${DATA_FILE%.npy}_info.json" ]; then
    die 2 "$DATA_FILE is a data set of your own, and EDM's split is of GEOM-Drugs: add --split molecule"
fi

# EDM's permutation of GEOM's conformers is 55 MB, and other data have no use for it.
GEOM_OPTION=
if [ "$SPLIT" = official ] && [ ! -e "$(dirname "$DATA_FILE")/geom_permutation.npy" ]; then
    GEOM_OPTION=--geom
fi
require_edm $GEOM_OPTION
install data

if [ -n "$SMOKE" ]; then
    if [ ! -e "$DATA_FILE" ]; then
        say "conformers of $SMOKE_MOLECULES molecules by RDKit, as an archive in GEOM's format"
        watched "$VENV_PYTHON" -m symdiff_plugin.data.geom rdkit --out "$FOLDER" --molecules "$SMOKE_MOLECULES"
    fi
    ARCHIVE=$FOLDER/drugs_crude.msgpack
fi
if [ ! -e "$DATA_FILE" ]; then
    watched "$VENV_PYTHON" -m symdiff_plugin.data.geom convert "$ARCHIVE" --out "$FOLDER"
fi

[ -n "$WANDB" ] || PRESET_FLAGS+=(--no_wandb)
DATA_FLAGS=(--data_file "$DATA_FILE")
train main_geom_drugs.py "${PRESET_FLAGS[@]}" ${FLAGS[@]+"${FLAGS[@]}"} --split "$SPLIT"
evaluate --n_samples "$N_SAMPLES"
say "configuration, checkpoints, learning curves, metrics.json, molecules and samples.png are in outputs/$NAME"
