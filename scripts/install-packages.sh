#!/bin/bash
# Installs the Debian packages that a group of work needs, and says which. Does and says nothing
# when they are all there. Needs root or sudo only when something is missing.
#
#   install-packages.sh GROUP...      groups: build run image test fuzz
set -euo pipefail

packages_of() {
    case $1 in
    # A C compiler: the cryptographic library is partly assembled and compiled.
    build) echo gcc libc6-dev make ;;
    # Running virtual machines with virtual TPMs.
    run) echo qemu-system-x86 qemu-utils swtpm ovmf ;;
    # Building the demonstration guest's image.
    image) echo mtools dosfstools fdisk e2fsprogs busybox-static cpio systemd-boot-efi binutils gzip ;;
    # Independent tools that the tests compare with.
    test) echo tpm2-tools swtpm-tools cryptsetup-bin libnbd-bin nbdkit fio faketime jq socat openssl curl procps python3-cryptography xmlsec1 libxml2-utils python3-zeep softhsm2 ;;
    # libFuzzer is C++; real headers and certificates to begin with.
    fuzz) echo g++ cryptsetup-bin openssl ;;
    *)
        echo "install-packages: no group '$1'; groups are build, run, image, test, fuzz" >&2
        exit 2
        ;;
    esac
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "install-packages: not root and no sudo; as root, run: $*" >&2
        exit 1
    fi
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
        -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@" \
        >"$log" 2>&1
}

if [ $# = 0 ]; then
    echo "usage: install-packages.sh GROUP...   (build run image test fuzz)" >&2
    exit 2
fi
if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "install-packages: this is not a Debian system; install the packages of '$*' by hand" >&2
    exit 1
fi

missing=()
for group in "$@"; do
    list=$(packages_of "$group")
    for package in $list; do
        installed "$package" || missing+=("$package")
    done
done
if [ ${#missing[@]} = 0 ]; then exit 0; fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Package lists may be absent (a bare machine) or too old to name files that still exist.
for package in "${missing[@]}"; do
    if ! apt-cache show "$package" >/dev/null 2>&1; then
        echo "install-packages: apt-get update"
        as_root apt-get -qq update >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
        break
    fi
done

echo "install-packages: installing ${missing[*]}"
if apt_install "${missing[@]}"; then exit 0; fi

echo "install-packages: that failed; again after apt-get update"
as_root apt-get -qq update >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
if apt_install "${missing[@]}"; then exit 0; fi

# A newer qemu-utils from a repository that is no longer configured holds back qemu-system-x86,
# which wants tools of its own version.
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
if installed qemu-utils && [[ " ${missing[*]} " == *" qemu-system-x86 "* ]]; then
    version=$(dpkg-query -W -f '${Version}' qemu-utils)
    echo "install-packages: that failed; downgrading qemu-utils $version to $release's"
    if apt_install --allow-downgrades "${missing[@]}" "qemu-utils/$release"; then exit 0; fi
fi
cat "$log" >&2
exit 1
