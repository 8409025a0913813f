#!/usr/bin/env bash
# Install missing Debian or Ubuntu packages; elsewhere say what is needed and go on.
# Usage: tools/install_system_packages.sh PACKAGE...
set -euo pipefail

missing=()
if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
    for package in "$@"; do
        dpkg-query --show --showformat '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
            missing+=("$package")
    done
else
    printf 'note: no apt on this system; please see to these yourself: %s\n' "$*" >&2
    exit 0
fi
[ ${#missing[@]} -gt 0 ] || exit 0

command_line=(apt-get install -y --no-install-recommends "${missing[@]}")
if [ "$(id -u)" -eq 0 ]; then
    as_root=(env)
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo env)
else
    printf 'note: system packages are missing and this account may not install them. Run:\n\n    sudo %s\n\n' \
        "${command_line[*]}" >&2
    exit 0
fi

echo "setup: installing system packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
as_root+=(DEBIAN_FRONTEND=noninteractive)
if ! { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" "${command_line[@]}" -qq; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "error: apt could not install: ${missing[*]}" >&2
    exit 1
fi
