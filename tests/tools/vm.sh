#!/usr/bin/env bash
# `make test-vm`: boots Debian's own kernel with one unified cgroup hierarchy, in which vm-init runs its cases and test programs of this workspace.
# In software, which works everywhere; VM_ACCEL=kvm is quicker where that works. VM_TESTS names test programs to be run as well (default: tests:core_dumps, which changes the core pattern).
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
out=$target/vm
debug=$target/$(rustc -vV | sed -n 's/^host: //p')/debug
root=$out/root
accel=${VM_ACCEL:-tcg}
tests=${VM_TESTS-tests:core_dumps}
started=$SECONDS

# Debian's kernel, unpacked and not installed.
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-6\.1\..*\)/\1/p')
mkdir -p "$out/kernel"
[ -d "$out/kernel/$package" ] || (cd "$out/kernel" && apt-get download "$package" && dpkg -x "$package"_*.deb "$package" && rm ./*.deb)
kernel=$out/kernel/$package

rm -rf "$root" && mkdir -p "$root"/{proc,sys,dev,run,tmp,home,modules,product,stage/bare,tests}
cp "$debug/vm-init" "$root/init"
cp "$debug/invarlock-workload" "$root/stage/bare/workload"
cp "$(find "$kernel" -name overlay.ko)" "$root/modules"
# Programs lie where they were built, since tests know each other by those paths.
place() { mkdir -p "$root$(dirname "$1")" && cp -rL "$1" "$root$1"; }
for name in invarlock invarlock-evaluator invarlock-workload noop without; do
    place "$debug/$name" && ln -s "$debug/$name" "$root/product/$name"
done
place "$PWD/demo" && ln -s "$PWD/demo" "$root/product/demo"
for test in $tests; do
    program=$(cargo test --locked --workspace --all-features --no-run --message-format=json --test "${test#*:}" -p "invarlock-${test%:*}" 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | grep "/deps/${test#*:}-")
    place "$program" && ln -s "$program" "$root/tests/${test/:/-}"
done
for program in /bin/sh /bin/sleep /usr/bin/setpriv; do
    for file in $program $(ldd $program | grep -o '/[^ ]*'); do place "$file"; done
done
rm -f "$out/root.ext4"
mke2fs -q -t ext4 -b 4096 -O verity -d "$root" -E root_owner=0:0 "$out/root.ext4" 1G

timeout "${VM_SECONDS:-1800}" qemu-system-x86_64 -accel "$accel$([ "$accel" = tcg ] && echo ,thread=multi)" -cpu max -smp 2 -m 2G -nographic -no-reboot -nic none -monitor none \
    -kernel "$kernel"/boot/vmlinuz-* -append "console=ttyS0 root=/dev/nvme0n1 rw init=/init panic=-1 quiet" \
    -drive "if=none,id=disk,format=raw,file=$out/root.ext4" -device nvme,serial=1,drive=disk -serial "file:$out/console" </dev/null || true
awk -v accel="$accel" -v seconds=$((SECONDS - started)) -f tests/tools/vm.awk "$out/console"
