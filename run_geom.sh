#!/usr/bin/env bash
# Set up from nothing and train on GEOM-Drugs with EDM's main_geom_drugs.py. ./run_geom.sh --help says how.
set -euo pipefail

GEOM=data/geom/geom_drugs_30.npy
PERMUTATION=data/geom/geom_permutation.npy

usage() {
    cat <<END
usage: ./run_geom.sh [PRESET] [flags of main_geom_drugs.py]

Makes a virtual environment, gets EDM, and trains PRESET (symdiff) on GEOM-Drugs; an unfinished training goes on.
Results: outputs/NAME, NAME being --exp_name or geom_PRESET. Needs $GEOM: download drugs_crude.msgpack of
GEOM (https://dataverse.harvard.edu/dataset.xhtml?persistentId=doi:10.7910/DVN/JNGTDF) into data/geom, then
    python e3_diffusion_for_molecules/build_geom_dataset.py --data_dir data/geom

environment: EDM_REPO, PYTHON, SYMDIFF_VENV as for ./run_qm9.sh
END
}

cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/setup.sh
. scripts/setup.sh

PRESET=symdiff
case ${1:-} in
    '' | -*) ;;
    *)
        PRESET=$1
        shift
        ;;
esac
for flag in "$@"; do
    case $flag in
        -h | --help)
            usage
            exit 0
            ;;
    esac
done
find_python
NAME=geom_$PRESET
N_SAMPLES=1
DATADIR=
RESUME=auto
WANDB=
DATA_FLAGS=()
preset_flags "$PRESET"
case " ${PRESET_FLAGS[*]} " in
    *" egnn_dynamics "*) die 2 "$PRESET is EDM's EGNN with QM9's settings; for GEOM run main_geom_drugs.py as EDM's README says" ;;
esac
parse_flags "$@"
[ -z "$DATADIR" ] || die 2 "EDM reads GEOM from data/geom alone: leave out --datadir"
[ -e "$GEOM" ] || die 2 "no $GEOM: put drugs_crude.msgpack of GEOM into data/geom and run build_geom_dataset.py, see --help"

if [ ! -e "$PERMUTATION" ]; then
    require_edm --geom
    cp "e3_diffusion_for_molecules/$PERMUTATION" "$PERMUTATION.partial"
    mv "$PERMUTATION.partial" "$PERMUTATION"
else
    require_edm
fi
install data
[ -n "$WANDB" ] || PRESET_FLAGS+=(--no_wandb)
train main_geom_drugs.py "${PRESET_FLAGS[@]}" ${FLAGS[@]+"${FLAGS[@]}"}
say "configuration, checkpoints and learning curves are in outputs/$NAME"
