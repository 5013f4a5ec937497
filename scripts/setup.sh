# Set-up shared by run_qm9.sh, run_geom.sh and run_tests.sh, which source this file; it goes to the repository's root.
# Bash 3.2 (macOS) must do: an empty array is written ${a[@]+"${a[@]}"} there.
# shellcheck shell=bash disable=SC2034

CALLER=$PWD
CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/.."

# from_caller PATH: PATH as it is meant where the user is; data/ and outputs/ are ours.
from_caller() {
    case $1 in
        '' | /* | data | data/* | ./data/* | outputs/* | ./outputs/*) printf '%s\n' "$1" ;;
        *) printf '%s\n' "$CALLER/$1" ;;
    esac
}

VENV=.venv
[ -z "${SYMDIFF_VENV:-}" ] || VENV=$(from_caller "$SYMDIFF_VENV")
VENV=${VENV%/}
VENV_PYTHON=$VENV/bin/python
BASE_PYTHON=
unset EDM_DIR # here EDM is in the clone
case ${EDM_REPO:-} in
    '' | *:*) ;;
    *) EDM_REPO=$(from_caller "$EDM_REPO") ;;
esac

# requires-python of pyproject.toml, >=3.FIRST,<3.BEYOND, is the one place that says which Pythons may be.
read -r FIRST BEYOND <<END
$(sed -n 's/^requires-python = ">=3\.\([0-9]*\),<3\.\([0-9]*\)"$/\1 \2/p' pyproject.toml)
END
OUR_PYTHONS="Python 3.$FIRST to 3.$((BEYOND - 1))"

say() { printf '== %s\n' "$*"; }

# die STATUS MESSAGE: one line on stderr.
die() {
    printf '%s: %s\n' "$(basename "$0")" "$2" >&2
    exit "$1"
}

# stop STATUS SIGNAL: pass a signal on to the command that is watched, which ends in its own time; else end.
STOPPED=
stop() {
    local child
    STOPPED=$1
    child=$(jobs -p)
    if [ -n "$child" ]; then
        kill "-$2" "$child" 2>/dev/null || :
    else
        ended
    fi
}

ended() {
    local what=terminated
    [ "$STOPPED" != 130 ] || what=interrupted
    die "$STOPPED" "$what; the same command goes on where it stopped"
}

# Bash waits for the command that Ctrl-C ends, then comes here; what is watched gets SIGTERM, as it is started without
# an ear for Ctrl-C.
trap 'stop 130 TERM' INT
trap 'stop 143 TERM' TERM
trap 'stop 129 HUP' HUP
trap 'stop $((128 + $(kill -l USR1))) USR1' USR1

# watched COMMAND...: run it, and do not end before it has ended, whatever signal comes.
watched() {
    local child status
    "$@" &
    child=$!
    while :; do
        status=0
        wait "$child" || status=$?
        kill -0 "$child" 2>/dev/null || break # else it was a signal that ended the waiting
    done
    [ -z "$STOPPED" ] || ended
    return $status
}

shout() {
    local line="######################################################################"
    printf '%s\n' "$line" "$@" "$line" >&2
}

is_our_python() {
    "$1" -c 'import sys; first, beyond = map(int, sys.argv[1:])
sys.exit(not (3, first) <= sys.version_info < (3, beyond))' "$FIRST" "$BEYOND" >/dev/null 2>&1
}

# A Python for what needs no packages, and to make the virtual environment with.
find_python() {
    local minor candidate=python3
    if [ -n "${PYTHON:-}" ]; then
        case $PYTHON in */*) PYTHON=$(from_caller "$PYTHON") ;; esac
        is_our_python "$PYTHON" || die 2 "PYTHON=$PYTHON is not $OUR_PYTHONS, or does not run"
        BASE_PYTHON=$PYTHON
        return
    fi
    for ((minor = BEYOND; minor >= FIRST; minor--)); do
        if is_our_python "$candidate"; then
            BASE_PYTHON=$candidate
            return
        fi
        candidate=python3.$((minor - 1))
    done
    die 1 "no $OUR_PYTHONS found: install one, or name it with PYTHON=/path/to/python3"
}

# require_edm [OPTION]: get EDM and apply our patches, or exit with edm's one line and status.
require_edm() {
    "$BASE_PYTHON" -m symdiff_plugin.edm get "$@"
    "$BASE_PYTHON" -m symdiff_plugin.edm apply
}

# The same, but where EDM cannot be had: return 1 with the reason in EDM_FAULT. A wrong EDM still exits.
try_edm() {
    local status=0
    EDM_FAULT=$("$BASE_PYTHON" -m symdiff_plugin.edm get 2>&1 >/dev/null) || status=$?
    EDM_FAULT=${EDM_FAULT##*$'\n'}
    case $status in
        0) "$BASE_PYTHON" -m symdiff_plugin.edm apply ;;
        1) return 1 ;;
        *)
            printf '%s\n' "$EDM_FAULT" >&2
            exit "$status"
            ;;
    esac
}

# claim FILE WHAT: note in FILE that this process does WHAT; exits where another one on this machine is at it.
claim() {
    local holder host
    read -r holder host <<END
$(cat "$1" 2>/dev/null)
END
    if [ "$host" = "$(uname -n)" ] && [ "$holder" != $$ ] && kill -0 "$holder" 2>/dev/null; then
        die 1 "process $holder is $2: wait for it or stop it (if it is something else, remove $1)"
    fi
    write_down "$$ $(uname -n)" "$1"
}

# installation EXTRA...: what an environment is made from, with the extras that it has. A stamp of the same text means
# that nothing has to be done.
STAMP=$VENV/.symdiff
CONSTRAINTS=constraints.txt
installation() {
    cat pyproject.toml "$CONSTRAINTS" | cksum
    { grep '^with ' "$STAMP" 2>/dev/null || :; printf 'with %s\n' "$@"; } | sort -u
}

# The clone whose package the environment runs; nothing where it runs none.
venv_owner() {
    "$VENV_PYTHON" -I -c 'import importlib.util, os
spec = importlib.util.find_spec("symdiff_plugin")
root = os.path.dirname(os.path.dirname(os.path.realpath(spec.origin))) if spec and spec.origin else ""
print(root if os.path.exists(os.path.join(root, "pyproject.toml")) else "")' 2>/dev/null || :
}

# make_venv INTERRUPTED: only what we made ourselves is made anew; what lies in other folders is theirs.
make_venv() {
    local said
    if [ -n "$1" ] && [ -e "$VENV/.symdiff-made" ]; then
        say "the last installation into $VENV was interrupted: making it anew"
    elif "$VENV_PYTHON" -m pip --version >/dev/null 2>&1; then
        is_our_python "$VENV_PYTHON" || refuse_venv "the Python in $VENV is not $OUR_PYTHONS"
        return
    elif [ -n "$(ls -A "$VENV" 2>/dev/null)" ] && [ ! -e "$VENV/.symdiff-made" ]; then
        refuse_venv "$VENV is there but is no virtual environment with pip"
    fi
    say "making a virtual environment in $VENV"
    said=$("$BASE_PYTHON" -m venv --clear "$VENV" 2>&1) || die 1 \
        "cannot make a virtual environment in $VENV ($(one_line "$said")): is there space, and python3-venv installed?"
    : >"$VENV/.symdiff-made"
}

refuse_venv() {
    rm -f "$VENV.installing"
    die 2 "$1: remove it, or set SYMDIFF_VENV to another place"
}

# The end of a command's complaint, in one line.
one_line() {
    printf '%s\n' "$1" | grep -v '^[[:space:]]*$' | tail -n 1 | cut -c 1-300
}

# install EXTRA...: our package with these extras in the virtual environment; nothing where that is done.
install() {
    local log wanted owner interrupted=
    owner=$(venv_owner)
    wanted=$(installation "$@")
    if [ "$owner" = "$(pwd -P)" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    if [ -n "${SYMDIFF_VENV:-}" ] && [ -n "$owner" ] && [ "$owner" != "$(pwd -P)" ]; then
        die 2 "$VENV is the environment of $owner: set SYMDIFF_VENV to another place, or give it up there with \
$VENV_PYTHON -m pip uninstall symdiff-plugin"
    fi
    mkdir -p "$(dirname "$VENV")" || die 1 "cannot make $VENV: set SYMDIFF_VENV to another place"
    [ ! -e "$VENV.installing" ] || interrupted=1
    claim "$VENV.installing" "installing into $VENV"
    make_venv "$interrupted"
    log=$VENV/install.log
    say "installing the packages into $VENV (PyTorch is large: minutes)"
    # Progress goes to a terminal; pip's many warnings about a missing network go to the log.
    local quiet=--quiet
    [ -t 1 ] && quiet=--progress-bar=on
    if ! "$VENV_PYTHON" -m pip install "$quiet" --retries 2 --disable-pip-version-check \
        -c "$CONSTRAINTS" -e ".[$(printf '%s\n' "$wanted" | sed -n 's/^with //p' | paste -sd , -)]" 2>"$log"; then
        die 1 "$(pip_fault "$log")"
    fi
    write_down "$wanted" "$STAMP"
    rm -f "$VENV.installing"
}

pip_fault() {
    if grep -qi 'no space left' "$1"; then
        echo "no space left on the disk for the packages in $VENV: make room and run again"
    elif grep -qiE 'connection|resolve|timed out|unreachable|proxy' "$1"; then
        echo "no network to install the packages from: connect, or tell pip of a local index, and run again (see $1)"
    else
        echo "pip cannot install the packages: $(one_line "$(grep 'ERROR: ' "$1" || cat "$1")") (see $1)"
    fi
}

# read_preset WORD...: what a script's first word says, in PRESET or SMOKE, and the flags behind it in WORDS. Help is
# given wherever it is asked for, by the script's usage.
read_preset() {
    local word
    PRESET=symdiff
    SMOKE=
    case ${1:-} in
        help)
            usage
            exit 0
            ;;
        --smoke)
            SMOKE=1
            shift
            case ${1:-} in
                '' | -*) ;;
                *) die 2 "--smoke has a model of its own: leave out '$1'" ;;
            esac
            ;;
        '' | -*) ;;
        *)
            PRESET=$1
            shift
            ;;
    esac
    for word in "$@"; do
        case $word in
            -h | --help)
                usage
                exit 0
                ;;
            --smoke) die 2 "--smoke comes first and takes no preset" ;;
        esac
    done
    WORDS=("$@")
}

# parse_flags FLAG...: split a command line into what the scripts themselves need (NAME, DATADIR, N_SAMPLES,
# RESUME, WANDB) and FLAGS, EDM's.
parse_flags() {
    FLAGS=()
    local value
    while [ $# -gt 0 ]; do
        case $1 in
            --exp_name | --datadir | --n_samples | --resume | --init_from)
                [ $# -gt 1 ] || die 2 "$1 needs a value"
                set -- "$1=$2" "${@:3}"
                continue
                ;;
        esac
        value=${1#*=}
        case $1 in
            --exp_name=*) NAME=$value ;;
            --datadir=*) DATADIR=$(from_caller "$value") ;;
            --n_samples=*) N_SAMPLES=$value ;;
            --resume=auto) RESUME=auto ;;
            --resume=*) RESUME=$(from_caller "$value") ;;
            --init_from=*) FLAGS+=("--init_from=$(from_caller "$value")") ;;
            --model | --model=*) die 2 "name the model as the first argument, a preset, not with --model" ;;
            --exp | --exp_* | --data | --datad* | --res | --resu* | --n_sam* | --init*)
                die 2 "write ${1%%=*} in full: --exp_name, --datadir, --resume, --n_samples or --init_from"
                ;;
            --wandb_usr | --wandb_usr=* | --online | --online=*)
                WANDB=1
                FLAGS+=("$1")
                ;;
            *) FLAGS+=("$1") ;;
        esac
        shift
    done
    case $NAME in
        '' | .* | /* | *..* | -*) die 2 "--exp_name '$NAME' cannot name a folder of outputs/: choose another" ;;
    esac
    case $N_SAMPLES in
        '' | 0 | *[!0-9]*) die 2 "--n_samples must be a positive number, not '$N_SAMPLES'" ;;
    esac
}

# preset_flags PRESET [geom]: its flags in PRESET_FLAGS; exits with the list of names for an unknown one.
preset_flags() {
    local words word
    words=$("$BASE_PYTHON" -m symdiff_plugin.presets flags "$@") || exit 2
    PRESET_FLAGS=()
    while IFS= read -r word; do
        PRESET_FLAGS+=("$word")
    done <<END
$words
END
}

# train SCRIPT [FLAG...]: run EDM's training script as outputs/$NAME, once. The flags are written down beside it:
# a finished run is not repeated, an unfinished one goes on, and other flags under the same name are refused.
train() {
    local out=outputs/$NAME script=$1 flags status=0
    shift
    flags=$(printf '%s\n' "$script" "$@" ${DATA_FLAGS[@]+"${DATA_FLAGS[@]}"})
    if [ "$(cat "$out/training_done" 2>/dev/null)" = "$flags" ]; then
        say "$out is trained already"
        return
    fi
    if [ -e "$out/config.json" ] && [ "$(cat "$out/command" 2>/dev/null)" != "$flags" ]; then
        die 2 "$out holds a run made with other flags: choose another name with --exp_name, or remove it"
    fi
    mkdir -p "$out" || die 1 "cannot make $out"
    rm -f "$out/evaluation_done"
    write_down "$flags" "$out/command"
    say "training: $out"
    watched "$VENV_PYTHON" "e3_diffusion_for_molecules/$script" "$@" --exp_name "$NAME" --resume "$RESUME" \
        ${DATA_FLAGS[@]+"${DATA_FLAGS[@]}"} || status=$?
    if [ $status -ne 0 ]; then
        # Refused before it began: leave no trace.
        if [ ! -e "$out/config.json" ] && [ ! -e "$out/.lock" ]; then
            rm -f "$out/command"
            rmdir "$out" 2>/dev/null || :
        fi
        exit $status
    fi
    write_down "$flags" "$out/training_done"
}

# evaluate [FLAG...]: judge outputs/$NAME, unless these flags did so since it was trained.
evaluate() {
    local out=outputs/$NAME flags
    flags=$(printf '%s\n' "$@")
    if [ -e "$out/metrics.json" ] && [ ! "$out/checkpoint.pt" -nt "$out/metrics.json" ] &&
        [ "$(cat "$out/evaluation_done" 2>/dev/null)" = "$flags" ]; then
        say "$out is evaluated already"
        "$VENV_PYTHON" -c 'import json, sys; from symdiff_plugin.evaluate.evaluation import metrics_table
print(metrics_table(json.load(open(sys.argv[1]))))' "$out/metrics.json"
        return
    fi
    say "evaluating: $out"
    watched "$VENV_PYTHON" -m symdiff_plugin.evaluate "$out" "$@" ${DATA_FLAGS[@]+"${DATA_FLAGS[@]}"}
    write_down "$flags" "$out/evaluation_done"
}

write_down() {
    if ! { printf '%s\n' "$1" >"$2.partial" && mv -f "$2.partial" "$2"; }; then
        die 1 "cannot write $2: is the disk full?"
    fi
}
