#!/bin/sh
# A deployment gate: build the images, serve a model repository with compose, hold it against limits, take it down.
#
#   deploy/ci/gate.sh [--keep] REPOSITORY [options of `trimaran loadtest`]
#   deploy/ci/gate.sh out/models --users 8 --duration 30s --max-ttft-p95 2s
#
# Exit code: 0 passed; 1 a limit was broken; 2 it could not be built or did not become healthy (the log is printed);
# 4 the load generator was too late in an open loop, so that the run is invalid.
# --keep leaves it running. The variables of compose.yaml (.env) apply; COMPOSE_PROJECT_NAME keeps runs apart.
set -eu

keep=false
if [ "${1:-}" = --keep ]; then
    keep=true
    shift
fi
if [ $# -eq 0 ] || [ ! -d "$1" ]; then
    echo "usage: gate.sh [--keep] REPOSITORY [options of trimaran loadtest]; no such folder: ${1:-(none given)}" >&2
    exit 2
fi
TRIMARAN_REPOSITORY=$(cd "$1" && pwd)
export TRIMARAN_REPOSITORY
shift
[ $# -gt 0 ] || set -- --users 8 --duration 30s --warmup 5s --max-failure-rate 0

cd "$(dirname "$0")/../.."
export COMPOSE_PROJECT_NAME="${COMPOSE_PROJECT_NAME:-trimaran-gate}"
if docker compose version >/dev/null 2>&1; then
    compose() { docker compose "$@"; }
else
    compose() { docker-compose "$@"; }
fi
echo "== compose $(compose version --short)"

finish() {
    code=$?
    trap - EXIT INT TERM
    if [ "$keep" = false ] || [ "$code" = 2 ]; then
        compose --profile loadtest down --volumes --remove-orphans --timeout 20 >/dev/null 2>&1 || true
    fi
    exit "$code"
}
trap finish EXIT
trap 'exit 2' INT TERM

# What the images' labels say of their source, unless the caller says it: the commit, and where GitHub has it. Only the
# build gets these variables: `up` by hand, later, must be given the same as here.
build() (
    if commit=$(git rev-parse --verify HEAD 2>/dev/null) && [ -z "$(git rev-parse --show-prefix)" ]; then
        [ -z "$(git status --porcelain --untracked-files=no)" ] || commit="$commit-dirty"
        export TRIMARAN_REVISION="${TRIMARAN_REVISION:-$commit}"
        export TRIMARAN_CREATED="${TRIMARAN_CREATED:-$(git show --no-patch --format=%cI)}"
    fi
    if [ -n "${GITHUB_REPOSITORY:-}" ]; then
        export TRIMARAN_SOURCE="${TRIMARAN_SOURCE:-${GITHUB_SERVER_URL:-https://github.com}/$GITHUB_REPOSITORY}"
    fi
    compose --profile loadtest build triton loadtest
)

echo "== build"
build || exit 2

echo "== serve $TRIMARAN_REPOSITORY"
compose up -d triton || exit 2
# One, should a larger `--scale` of before have left several.
container=$(compose ps -a -q triton | tail -n 1)
if [ -z "$container" ]; then
    echo "compose started no container for the service triton" >&2
    exit 2
fi
# compose reads .env by itself, quotes and remarks included; a shell does not.
written=$(sed -n "s/^TRIMARAN_START_SECONDS=[\"']\{0,1\}\([0-9]*\).*/\1/p" .env 2>/dev/null | tail -n 1)
seconds=${TRIMARAN_START_SECONDS:-$written}
limit=$(($(date +%s) + ${seconds:-600}))
while :; do
    state=$(docker inspect --format '{{.State.Health.Status}} {{.State.Status}} {{.RestartCount}}' "$container") || exit 2
    case $state in
        healthy*) break ;;
        unhealthy* | *restarting* | *exited* | *" running "[1-9]*) reason=$state ;;
        *) reason="" ;;
    esac
    if [ -n "$reason" ] || [ "$(date +%s)" -gt "$limit" ]; then
        echo "triton is not healthy: ${reason:-still $state}; its log:" >&2
        compose logs --tail 40 triton >&2
        exit 2
    fi
    sleep 1
done
echo "healthy"

echo "== load test: $*"
code=0
compose --profile loadtest run --rm loadtest "$@" || code=$?
if [ "$code" -gt 1 ] && [ "$code" -ne 4 ]; then
    compose logs --tail 40 triton >&2
    exit 2
fi
exit "$code"
