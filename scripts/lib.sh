# shellcheck shell=bash
# What several scripts share: where the cache is, how to fail, how to make a
# Debian root folder. Sourced, never run.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WATCHER_CACHE_DIR=${WATCHER_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/watcher}
TIMESCALEDB_IMAGE=timescale/timescaledb:latest-pg17
export REPO WATCHER_CACHE_DIR TIMESCALEDB_IMAGE

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# die MESSAGE [HINT…]: the message says what went wrong, each hint is one way out.
die() {
    say "$1"
    shift
    local hint
    for hint in "$@"; do printf '  - %s\n' "$hint" >&2; done
    exit 1
}

# Whether something listens on 127.0.0.1:PORT.
port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
# free_port FROM: the first port from there on where nothing listens. Below the
# ephemeral range, where a probe of a closed port can meet itself.
free_port() {
    local port=$1
    while port_answers "$port"; do port=$((port + 1)); done
    printf '%s\n' "$port"
}

have() { command -v "$1" >/dev/null 2>&1; }

# The label that local stand-ins for public images carry, so that nothing takes
# one for the real thing.
STANDIN_LABEL=watcher.stand-in
docker_answers() { have docker && timeout 10 docker version >/dev/null 2>&1; }
image_present() { docker image inspect "$1" >/dev/null 2>&1; }
image_is_standin() {
    [ -n "$(docker image inspect --format "{{index .Config.Labels \"$STANDIN_LABEL\"}}" "$1" 2>/dev/null)" ]
}
# A registry that cannot be reached must cost seconds, not minutes, so ask for
# the manifest before asking for the layers.
image_pulls() {
    timeout 8 docker manifest inspect "$1" >/dev/null 2>&1 || return 1
    say "pulling $1"
    timeout 600 docker pull --quiet "$1" >/dev/null
}

# The mirror that this machine's own apt uses; none is written here, because
# the one that answers differs from network to network.
debian_mirror() {
    if [ -n "${WATCHER_DEBIAN_MIRROR:-}" ]; then
        printf '%s\n' "$WATCHER_DEBIAN_MIRROR"
        return
    fi
    have apt-get || die "no apt-get here: this needs a Debian machine" \
        "install Docker, so that $TIMESCALEDB_IMAGE can be pulled" \
        "or set DATABASE_URL to a TimescaleDB of yours"
    local codename mirror
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    # shellcheck disable=SC2016 # apt's own placeholders
    mirror=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v release="$codename" '$1 == release && $2 == "main" { print $3; exit }')
    # On a Debian derivative the first match is not Debian's archive.
    if [ -z "$mirror" ] || [ "$(. /etc/os-release && printf '%s' "$ID")" != debian ]; then
        die "apt's sources on this machine name no Debian archive" \
            "set WATCHER_DEBIAN_MIRROR to the URL of one" \
            "or install Docker, so that $TIMESCALEDB_IMAGE can be pulled" \
            "or set DATABASE_URL to a TimescaleDB of yours"
    fi
    printf '%s\n' "${mirror%/}"
}

# apt_install PACKAGE…: only what is missing is asked for by the callers.
apt_install() {
    say "installing $* by apt-get"
    local log
    log=$(mktemp)
    if ! { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }; } >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        die "apt-get could not install $*" "check this machine's apt sources, or install it by hand"
    fi
    rm -f "$log"
}

# without_our_files COMMAND…: with none of the files that this script holds open,
# such as locks. mmdebstrap has /bin/sh redirect to the descriptors that it opens
# itself, and dash knows only those below 10.
without_our_files() (
    for fd in /proc/self/fd/*; do
        fd=${fd##*/}
        if [ "$fd" -gt 2 ] && [ "$fd" -lt 255 ]; then eval "exec $fd>&-"; fi
    done
    exec "$@"
)

# debian_root FOLDER SUITE PACKAGES [MMDEBSTRAP OPTION…]: a Debian root folder,
# whole or absent. It is built beside its place and moved there, so that an
# interrupted build is never taken for a finished one.
debian_root() {
    local folder=$1 suite=$2 packages=$3
    shift 3
    [ ! -d "$folder" ] || return 0
    # Again with the lock held: someone else may be building this very folder.
    if [ "${DEBIAN_ROOT_LOCKED:-}" != "$folder" ]; then
        mkdir -p "${folder%/*}"
        (
            flock -w 900 7 || die "another run has been building $folder for 15 minutes"
            DEBIAN_ROOT_LOCKED=$folder debian_root "$folder" "$suite" "$packages" "$@"
        ) 7>"$folder.lock"
        return
    fi
    [ "$(id -u)" = 0 ] || die "building a Debian root folder needs root" \
        "run this once with sudo" \
        "or install Docker, so that $TIMESCALEDB_IMAGE can be pulled" \
        "or set DATABASE_URL to a TimescaleDB of yours"
    local mirror
    mirror=$(debian_mirror)
    have mmdebstrap || apt_install mmdebstrap
    # A host older than the suite may lack the keys that sign it.
    ls /usr/share/keyrings/debian-archive-"$suite"-*.gpg >/dev/null 2>&1 || apt_install debian-archive-keyring

    rm -rf --one-file-system "$folder".new.* || true # one that was killed may still be writing
    local new log settings
    new=$(mktemp -d "$folder.new.XXXXXX")
    log=$new.log settings=$new.apt
    # The proxy and download settings of this machine's apt, without its hooks.
    # shellcheck disable=SC2016
    { apt-config dump Acquire | grep -E '^Acquire::(http|https|Check-|Retries|ForceIPv)' || true; } >"$settings"
    say "building a Debian $suite root folder with $packages (about 30 s, once)"
    if ! without_our_files mmdebstrap --variant=apt --include="$packages" \
        --aptopt="$settings" --aptopt='Apt::Install-Recommends false' \
        --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        "$@" "$suite" "$new" "$mirror" >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -rf --one-file-system "$new" "$log" "$settings"
        die "mmdebstrap could not build a Debian $suite root folder" \
            "check that apt-get update works here: the same mirror is used" \
            "a file system mounted with nodev or noexec will not do: move WATCHER_CACHE_DIR"
    fi
    chmod 755 "$new"
    mv -T "$new" "$folder"
    rm -f "$log" "$settings"
}

# newest TREE: cargo builds this checkout next. Where two share a build folder
# (CARGO_TARGET_DIR) it tells them apart by the age of their files alone, and
# would hand out what it built of the other one.
newest() { touch "$1/src/lib.rs" "$1/src/main.rs"; }

# Debian trixie with TimescaleDB: what scripts/timescaledb runs by chroot and
# scripts/images makes an image of. The recipe's number is part of the name: a
# changed recipe makes a new folder and leaves alone the one that a running
# server stands on.
TIMESCALEDB_ROOT=$WATCHER_CACHE_DIR/timescaledb/trixie-2
timescaledb_root() {
    # shellcheck disable=SC2016 # expands in mmdebstrap's hook
    debian_root "$TIMESCALEDB_ROOT" trixie postgresql-17-timescaledb,openssl,pgbouncer \
        --essential-hook='mkdir -p "$1/etc/postgresql-common" && echo create_main_cluster = false > "$1/etc/postgresql-common/createcluster.conf"' \
        --customize-hook='mkdir -p "$1/instance/data" "$1/instance/tls" "$1/instance/log" "$1/instance/run"'
}
