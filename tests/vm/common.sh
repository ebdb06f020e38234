# shellcheck shell=bash
# What the scripts of this directory share. Sourced, never run.

# Ends the script with a message. 2 is bad usage or a missing tool: nothing was tried.
die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

# need COMMAND PACKAGE: a test that cannot run has failed, and says how to make it run.
need() {
  command -v "$1" >/dev/null || [ -x "/sbin/$1" ] || [ -x "/usr/sbin/$1" ] ||
    die "$1 is not installed: \`apt-get install $2\`"
}

# Seconds since the script began, for a line of the log.
say() { printf '[%3ss] %s\n' "$SECONDS" "$*"; }

# The public half of the key pair that Vagrant ships for freshly made boxes; it proves nothing about anybody.
vagrant_key() {
  local pair
  for pair in /usr/share/rubygems-integration/*/gems/vagrant-*/keys/vagrant.pub \
    /opt/vagrant/embedded/gems/*/gems/vagrant-*/keys/vagrant.pub; do
    [ ! -r "$pair" ] || { cat "$pair"; return; }
  done
  die "Vagrant's insecure public key is in none of the usual places: is Vagrant installed?"
}

# accelerator NAME: QEMU's arguments for it. The emulated one leaves out five-level page tables, which cost time and give
# nothing here, and cmpxchg16b, with which guests of QEMU 7.2 panic now and then.
accelerator() {
  case $1 in
    kvm) printf '%s' '-accel kvm -cpu host' ;;
    tcg) printf '%s' '-accel tcg,thread=single -cpu max,-la57,-cx16' ;;
    *) die "DVR_VM_ACCEL: \`kvm\` or \`tcg\`, not \`$1\`" ;;
  esac
}

# kvm_boots IMAGE WORK: whether the image's kernel gets with KVM, within ten seconds, as far as missing its disk.
kvm_boots() {
  [ -w /dev/kvm ] || return 1
  # shellcheck disable=SC2046
  timeout -s KILL 10 qemu-system-x86_64 $(accelerator kvm) -machine q35 -m 256 -nodefaults -no-user-config -display none \
    -no-reboot -kernel "$1/vmlinuz" -append "console=ttyS0 panic=-1 root=none" \
    -serial "file:$2/trial" </dev/null >/dev/null 2>&1 || true
  grep -q "Kernel panic - not syncing: VFS" "$2/trial" 2>/dev/null
}

# accelerator_here IMAGE WORK: what to run this image with on this host.
accelerator_here() {
  case ${DVR_VM_ACCEL:-} in
    "") if kvm_boots "$1" "$2"; then echo kvm; else echo tcg; fi ;;
    *) echo "$DVR_VM_ACCEL" ;;
  esac
}

# What every test needs: `root` of the source tree, a directory `work` that goes when the script ends, and the machine's
# `image`, made if it is not there or stale.
prepare() {
  root=$(cd "$here/../.." && pwd)
  work=$(mktemp -d "${TMPDIR:-/tmp}/dvr-test.XXXXXX")
  trap finish EXIT
  trap 'exit 130' INT TERM HUP
  image=${DVR_VM_IMAGE:-$root/target/vm}
  "$here/image" "$image"
  need qemu-system-x86_64 qemu-system-x86
  DVR_VM_ACCEL=$(accelerator_here "$image" "$work")
  export DVR_VM_ACCEL
  say "the image is there; machines run with $DVR_VM_ACCEL"
}

# The Debian package of the binary, as `package`.
packaged() {
  package=$("$root/packaging/deb" --binary "${DVR_BINARY:-$root/target/release/dvr}" --out "$work")
  say "the package is built: $(du -k "$package" | cut -f1) KiB"
}

# A test that ends early ends its machines; where DVR_VM_KEEP names a directory, consoles and outputs stay in it.
finish() {
  local job
  for job in $(jobs -p); do kill -TERM "$job" 2>/dev/null || true; done
  wait
  [ -z "${DVR_VM_KEEP:-}" ] || { mkdir -p "$DVR_VM_KEEP" && cp "$work"/*.console "$work"/*.out "$DVR_VM_KEEP/" 2>/dev/null; } || true
  rm -rf "$work"
}
