#!/usr/bin/env bash
# The trainings of the CPU study, one after the other on one core each: train.sh NAME...   (from the repository's root)
# A run that was interrupted goes on; a finished one ends at once. DATADIR holds QM9 (data), PYTHON is .venv/bin/python.
#
# Every run has one hour of one core in steps, from a quiet benchmark on the machine of the study, rounded to epochs (the
# EGNN's up), 1,563 steps of 64 molecules each:
#     python -m symdiff_plugin.benchmark --threads 1 --models symdiff_tiny symdiff_h_tiny dit_aug_tiny dit_tiny edm_tiny \
#         --workloads qm9_train qm9_call --no_scaling
# A step took 0.149 s (symdiff_tiny), 0.119 (symdiff_h_tiny, dit_aug_tiny), 0.122 (dit_tiny) and 0.528 (edm_tiny).
#
# mini goes on from symdiff_tiny's end with smaller learning rates: it is the qm9-mini of symdiff_plugin/pretrained.
set -euo pipefail

export OMP_NUM_THREADS=1
python=${PYTHON:-.venv/bin/python}
common=(--datadir "${DATADIR:-data}" --batch_size 64 --ema_decay 0.999 --seed 0 --test_epochs 2 --n_stability_samples 10
    --n_report_steps 500 --no_wandb --resume auto)
choices=docs/cpu_study/choices.py

for name in "$@"; do
    through=()
    case $name in
        symdiff_tiny) flags=(--model symdiff_tiny --lr 1e-3 --n_epochs 15) ;;
        symdiff_h_tiny | dit_aug_tiny | dit_tiny) flags=(--model "$name" --lr 1e-3 --n_epochs 19) ;;
        edm_tiny)
            flags=(--model egnn_dynamics --nf 64 --n_layers 4 --lr 5e-4 --n_epochs 5
                --diffusion_noise_schedule polynomial_2 --diffusion_noise_precision 1e-5 --diffusion_steps 1000
                --diffusion_loss_type l2 --normalize_factors "[1,4,10]")
            ;;
        # What the release does otherwise, one choice at a time, against the first epochs of symdiff_tiny.
        time_scale_1) flags=(--model symdiff_tiny --time_scale 1 --lr 1e-3 --n_epochs 5) ;;
        composition | psi | eta)
            flags=(--model symdiff_tiny --lr 1e-3 --n_epochs 3)
            through=("$choices" "$name")
            ;;
        mini) ;;
        *)
            echo "train.sh: unknown name $name" >&2
            exit 2
            ;;
    esac
    if [ "$name" = mini ]; then
        [ -e outputs/mini ] || cp -r outputs/symdiff_tiny outputs/mini
        # Until 33 epochs are done at 3e-4, then until 38 at 1e-4; 15 were at 1e-3.
        "$python" e3_diffusion_for_molecules/main_qm9.py --exp_name mini "${common[@]}" \
            --model symdiff_tiny --lr 3e-4 --n_epochs 33
        flags=(--model symdiff_tiny --lr 1e-4 --n_epochs 38)
    fi
    "$python" ${through[@]+"${through[@]}"} e3_diffusion_for_molecules/main_qm9.py --exp_name "$name" "${common[@]}" "${flags[@]}"
done
