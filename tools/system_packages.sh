#!/bin/sh
# Bring the Debian packages that pip cannot: libseccomp for the enclave's system-call filter; for tests Chromium, swtpm,
# espeak-ng, which speaks, and a C compiler.
set -eu
missing=""
ldconfig -p 2>/dev/null | grep -q 'libseccomp\.so\.2' || missing="$missing libseccomp2"
command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 || missing="$missing chromium"
command -v swtpm >/dev/null 2>&1 || missing="$missing swtpm"
command -v swtpm_setup >/dev/null 2>&1 || missing="$missing swtpm-tools"
command -v espeak-ng >/dev/null 2>&1 || missing="$missing espeak-ng"
command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq
    # shellcheck disable=SC2086 - a list of names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    exit 0
fi
echo "make: not installed:$missing; to install, run: sudo apt-get install$missing" >&2
echo "make: going on without; 'sinian doctor' and skipped tests say what is lost" >&2
