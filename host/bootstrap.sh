#!/bin/sh
# Puts the programs that layers are applied with on a machine, or takes this project's folders away again.
#
#   sh -s install < this text, with the programs in the place of the marker below
#   sh -s remove  < the same
#
# install: sees that python3 is there and writes the programs below /usr/local/lib/cosyvoice-lvs, each whole or not at all.
# remove:  deletes that and what the applier kept, unless a layer is still on the machine.
set -eu

LIBRARY=/usr/local/lib/cosyvoice-lvs
STATE=/var/lib/cosyvoice-lvs

fail() {
    printf 'cosyvoice-lvs: %s: %s\n' "$(uname -n)" "$1" >&2
    exit 1
}

install_python() {
    [ -x /usr/bin/python3 ] && return
    command -v apt-get >/dev/null || fail "there is no /usr/bin/python3, and no apt-get to install it with"
    export DEBIAN_FRONTEND=noninteractive
    set -- apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 python3
    if ! output=$("$@" 2>&1 </dev/null); then
        apt-get update -q -o DPkg::Lock::Timeout=300 >/dev/null 2>&1 </dev/null || true
        output=$("$@" 2>&1 </dev/null) || fail "python3 could not be installed:
$(printf '%s\n' "$output" | tail -n 30)
to do: see that this machine reaches its package mirror (apt-get update)"
    fi
}

# apply and turn, which run often, are modules behind launchers of a few lines: Python keeps the compiled form of a module,
# and compiling would be most of a small layer's time on a slow machine.
launcher() { # MODULE
    cat <<END_OF_THE_LAUNCHER
#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "/usr/local/lib/cosyvoice-lvs/python")
from $1 import main

sys.exit(main(sys.argv[1:]))
END_OF_THE_LAUNCHER
}

# put FILE MODE COMMAND...: writes what the command prints, whole or not at all, and leaves a file alone that is as it
# should be
put() {
    file=$1 mode=$2
    shift 2
    new=$(dirname "$file")/.${file##*/}.new
    "$@" >"$new"
    if cmp -s "$new" "$file"; then
        rm -f "$new"
        return
    fi
    chmod "$mode" "$new"
    case $file in
    *.py)
        output=$(/usr/bin/python3 -IS "$new" version 2>&1 </dev/null) || fail "${file##*/} does not run here:
$output
to do: Python 3.9 or newer must be /usr/bin/python3 (3.11 on real servers)"
        ;;
    esac
    sync "$new"
    mv -f "$new" "$file"
}

install_programs() {
    umask 022
    install_python
    mkdir -p "$LIBRARY/python"
    for name in $PROGRAMS; do
        print=print_$(echo "$name" | tr - _)
        case $name in
        apply | turn)
            put "$LIBRARY/python/cosyvoice_$name.py" 0644 "$print"
            put "$LIBRARY/$name" 0755 launcher "cosyvoice_$name"
            ;;
        *) put "$LIBRARY/$name" 0755 "$print" ;;
        esac
    done
}

remove_all() {
    for record in "$STATE"/layers/*.json; do
        [ -e "$record" ] || continue
        layer=${record##*/}
        echo "layer ${layer%.json} is still here; left alone"
        return
    done
    rm -rf "$LIBRARY" "$STATE" /etc/cosyvoice-lvs /run/cosyvoice-lvs /run/cosyvoice-lvs.lock
}

# PROGRAMS, the names of all, and print_NAME for each, which prints it. What is cut off on its way has no end below, and
# nothing is run.
@PROGRAMS@

[ "$(id -u)" = 0 ] || fail "this must run as root, and runs as $(id -un)
to do: set ssh.user to root, or to a user who may use sudo without a password"

case "${1:-}" in
install) install_programs ;;
remove) remove_all ;;
*) fail "say install or remove (received: ${1:-nothing})" ;;
esac
