#!/bin/bash
# Builds the demonstration guest's disk image from Debian packages: no root, no mounts, and the
# same bytes on every run with the same packages.
#
#   build.sh [--out DIR] [--refresh] [--client FILE]
#
# DIR (default target/guest-image) gets guest.img, guest-other.img (another kernel command line),
# guest-test.img (an initramfs that can misbehave on request) and manifest.json. With the static
# client FILE also guest-xkms.img, in which IMA measures what is executed, and xkms.json with the
# digests that a trust service approves. The kernel is the one that apt offers on the first run;
# later runs keep it until --refresh.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
out=$root/target/guest-image
refresh=no
client=
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=$2; shift 2 ;;
    --refresh) refresh=yes; shift ;;
    --client) client=$2; shift 2 ;;
    *) echo "usage: build.sh [--out DIR] [--refresh] [--client FILE]" >&2; exit 2 ;;
    esac
done
cache=$root/target/guest-image-cache
mkdir -p "$out" "$cache"
out=$(cd "$out" && pwd)

# Fixed where a tool would take the clock, chance or the caller's settings.
umask 022
export SOURCE_DATE_EPOCH=1700000000 E2FSPROGS_FAKE_TIME=1700000000 LC_ALL=C TZ=UTC
PATH=$PATH:/usr/sbin:/sbin
disk_guid=5A0C7A1E-0B1D-4C5E-9C39-1D6F0A7E0001
esp_guid=5A0C7A1E-0B1D-4C5E-9C39-1D6F0A7E0002
data_guid=5A0C7A1E-0B1D-4C5E-9C39-1D6F0A7E0003
data_uuid=5a0c7a1e-0b1d-4c5e-9c39-1d6f0a7e0004
hash_seed=5a0c7a1e-0b1d-4c5e-9c39-1d6f0a7e0005

# MiB: partition table, ESP, data, backup table.
esp_start=1 esp_size=18 data_start=19 data_size=20 disk_size=40

stub=/usr/lib/systemd/boot/efi/linuxx64.efi.stub
busybox=/bin/busybox
cmdline="console=ttyS0 loglevel=6 panic=-1"

# Modules in load order; a file's number is its place.
modules="virtio/virtio_ring virtio/virtio virtio/virtio_pci_legacy_dev virtio/virtio_pci_modern_dev
    virtio/virtio_pci block/virtio_blk char/virtio_console"

# In guest-xkms.img besides: what the EFI system partition is read with.
xkms_modules="nls/nls_cp437 nls/nls_ascii fat/fat fat/vfat"

# Prints the name of the newest cached kernel package, or nothing.
cached_kernel() { find "$cache" -maxdepth 1 -name 'linux-image-*.deb' | sort -V | tail -n 1; }

# The kernel package that apt offers for linux-image-cloud-amd64, fetched into the cache.
fetch_kernel() {
    local name
    name=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
    if [ -z "$name" ]; then return 1; fi
    echo "guest-image: fetching $name" >&2
    rm -rf "$cache/fetch"
    mkdir "$cache/fetch"
    (cd "$cache/fetch" && apt-get -qq download "$name") 2>"$cache/fetch.log" || return 1
    mv "$cache"/fetch/*.deb "$cache/"
    rmdir "$cache/fetch"
}

# Makes sure that a kernel package is cached. Old package lists name files that are gone: then
# once more after an update, which needs root.
ensure_kernel() {
    if [ "$refresh" = yes ]; then rm -f "$cache"/linux-image-*.deb; fi
    if [ -n "$(cached_kernel)" ] || fetch_kernel; then return 0; fi
    echo "guest-image: apt-get update" >&2
    if [ "$(id -u)" = 0 ]; then apt-get -qq update >&2; else sudo apt-get -qq update >&2; fi
    if fetch_kernel; then return 0; fi
    cat "$cache/fetch.log" >&2 || true
    echo "guest-image: apt cannot fetch the kernel that linux-image-cloud-amd64 depends on" >&2
    return 1
}

# Everything that decides the bytes of the image, in one digest.
inputs_digest() {
    {
        sha256sum "$here/build.sh" "$here/init" "$here/misbehave.sh" "$here/xkms.sh" \
            "$here/ima-policy" "$stub" "$busybox" "$1" ${client:+"$client"} | cut -d ' ' -f 1
        dpkg-query -W -f '${Package} ${Version}\n' binutils cpio dosfstools e2fsprogs fdisk mtools
    } | sha256sum | cut -d ' ' -f 1
}

# initramfs FILE [EXTRA..]: busybox, the modules and init; each EXTRA is one more file at the root, or
# below it if the client is among them.
initramfs() {
    local tree=$work/initramfs number=10 module applet file=$1 places="$modules" extra
    shift
    rm -rf "$tree"
    mkdir -p "$tree"/{bin,data,dev,modules,proc,sys,tmp}
    for extra in "$@"; do
        if [ "$extra" != "$client" ]; then cp "$extra" "$tree/"; continue; fi
        install -m 755 "$extra" "$tree/bin/vouchsafe-guest"
        mkdir "$tree/esp"
        ln -s esp/vouchsafe "$tree/vouchsafe"
        places="$modules $(printf 'FS%s ' $xkms_modules)"
    done
    cp "$busybox" "$tree/bin/busybox"
    for applet in blockdev cat cut dd echo head insmod kill mount mv poweroff printf sh sleep sync tr \
        umount wc xxd; do
        ln -s busybox "$tree/bin/$applet"
    done
    for module in $places; do
        case $module in
        FS*) module=fs/${module#FS} ;;
        *) module=drivers/$module ;;
        esac
        cp "$(echo "$work"/kernel/lib/modules/*/kernel/"$module".ko)" \
            "$tree/modules/$number-${module##*/}.ko"
        number=$((number + 1))
    done
    cp "$here/init" "$tree/init"
    chmod 755 "$tree/init" "$tree/bin/busybox"
    find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    (cd "$tree" && find . | sort |
        cpio --quiet --reproducible -o -H newc -R 0:0) | gzip -9n >"$file"
}

# uki FILE INITRD CMDLINE: the stub with the four sections after its own, page-aligned.
uki() {
    local address=0 file args=() name coff
    printf '%s' "$3" >"$work/cmdline"
    printf 'ID=vouchsafe-guest\nNAME="Vouchsafe demonstration guest"\nVERSION_ID=1\n' >"$work/osrel"
    while read -r size vma; do
        if [ $((16#$size + 16#$vma)) -gt $address ]; then address=$((16#$size + 16#$vma)); fi
    done < <(objdump -h "$stub" | awk '$1 ~ /^[0-9]+$/ { print $3, $4 }')
    for name in osrel cmdline linux initrd; do
        file=$work/$name
        if [ $name = initrd ]; then file=$2; fi
        if [ $name = linux ]; then file=$work/vmlinuz; fi
        address=$(((address + 4095) / 4096 * 4096))
        args+=(--add-section ".$name=$file" --change-section-vma ".$name=$(printf '0x%x' $address)")
        address=$((address + $(stat -c %s "$file")))
    done
    objcopy "${args[@]}" "$stub" "$1"
    # objcopy writes the time into the COFF header and covers it by the checksum, which UEFI does
    # not look at: both become zero.
    coff=$(od -A n -t u4 -j 60 -N 4 "$1")
    printf '\0\0\0\0' | dd of="$1" bs=1 seek=$((coff + 8)) conv=notrunc status=none
    printf '\0\0\0\0' | dd of="$1" bs=1 seek=$((coff + 88)) conv=notrunc status=none
}

# disk FILE UKI: GPT with the ESP and the data partition.
disk() {
    local esp=$work/esp.fat data=$work/data.ext4
    rm -f "$esp" "$data" "$1"
    mkfs.vfat --invariant -n VOUCHSAFE -C "$esp" $((esp_size * 1024)) >/dev/null
    touch -d "@$SOURCE_DATE_EPOCH" "$2"
    mmd -i "$esp" ::/EFI ::/EFI/BOOT
    mcopy -m -i "$esp" "$2" ::/EFI/BOOT/BOOTX64.EFI
    mke2fs -q -F -t ext4 -b 4096 -N 256 -J size=4 -m 0 -L guest-data -U "$data_uuid" \
        -E "hash_seed=$hash_seed,root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0" \
        "$data" ${data_size}M >/dev/null
    truncate -s ${disk_size}M "$1"
    sfdisk -q "$1" <<TABLE
label: gpt
label-id: $disk_guid
start=${esp_start}MiB, size=${esp_size}MiB, type=U, uuid=$esp_guid, name="ESP"
start=${data_start}MiB, size=${data_size}MiB, type=L, uuid=$data_guid, name="guest-data"
TABLE
    dd if="$esp" of="$1" bs=1M seek=$esp_start conv=notrunc,sparse status=none
    dd if="$data" of="$1" bs=1M seek=$data_start conv=notrunc,sparse status=none
}

ensure_kernel
deb=$(cached_kernel)
inputs=$(inputs_digest "$deb")
if [ -f "$out/manifest.json" ] && grep -q "\"inputs\": \"$inputs\"" "$out/manifest.json"; then
    echo "guest-image: up to date in ${out#"$root"/}"
    exit 0
fi

work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
rm -f "$out/manifest.json"
dpkg-deb -x "$deb" "$work/kernel"
cp "$(echo "$work"/kernel/boot/vmlinuz-*)" "$work/vmlinuz"
initramfs "$work/initrd"
initramfs "$work/initrd-test" "$here/misbehave.sh"
uki "$work/guest.efi" "$work/initrd" "$cmdline"
uki "$work/guest-other.efi" "$work/initrd" "$cmdline init_on_free=1"
uki "$work/guest-test.efi" "$work/initrd-test" "$cmdline"
names="guest guest-other guest-test"
if [ -n "$client" ]; then
    initramfs "$work/initrd-xkms" "$client" "$here/xkms.sh" "$here/ima-policy"
    # What may run in it: the client, and everything else that IMA can meet.
    {
        echo "{ \"client\": \"sha256:$(sha256sum <"$client" | cut -d ' ' -f 1)\", \"software\": ["
        sha256sum "$work/initramfs/bin/busybox" "$work"/initramfs/modules/*.ko |
            sed 's/ .*//; s/.*/  "sha256:&"/; $!s/$/,/'
        echo ']}'
    } >"$work/xkms.json"
    uki "$work/guest-xkms.efi" "$work/initrd-xkms" "$cmdline"
    names="$names guest-xkms"
fi
for name in $names; do
    disk "$work/$name.img" "$work/$name.efi"
done

{
    echo '{'
    echo "  \"inputs\": \"$inputs\","
    echo "  \"kernel\": \"$(dpkg-deb -f "$deb" Package) $(dpkg-deb -f "$deb" Version)\","
    dpkg-query -W -f '  "${Package}": "${Version}",\n' busybox-static systemd-boot-efi
    for name in $names; do
        echo "  \"$name.img\": \"$(sha256sum <"$work/$name.img" | cut -d ' ' -f 1)\","
    done
    echo "  \"cmdline\": \"$cmdline\""
    echo '}'
} >"$work/manifest.json"
for name in $names; do mv "$work/$name.img" "$out/"; done
if [ -n "$client" ]; then mv "$work/xkms.json" "$out/"; fi
mv "$work/manifest.json" "$out/"
echo "guest-image: built in ${out#"$root"/} ($disk_size MiB each): $names"
