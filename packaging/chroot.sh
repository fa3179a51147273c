#!/bin/sh
# packaging/chroot.sh TARBALL: in a fresh Debian bookworm that has compilers, CMake and pkg-config only, unpacks the tarball of `make dist`,
# builds the example in four ways and runs each. MIRROR names another Debian mirror, SYSTEM the folder that keeps the system for the next
# time.
set -eu
tarball=$1
here=$(pwd)
system=${SYSTEM:-$here/build/bookworm}

skip() {
  echo "skipped: $1"
  exit 0
}

[ "$(id -u)" = 0 ] || skip "only root can make a system of its own"
command -v debootstrap > /dev/null || skip "debootstrap (Debian's package debootstrap) is missing"
unshare --mount true 2> /dev/null || skip "this machine lets nobody mount /proc for another system"

if [ ! -e "$system/.complete" ]; then
  rm -rf "$system"
  mkdir -p "$(dirname "$system")"
  log=$(dirname "$system")/debootstrap.log
  debootstrap --variant=minbase --include=gcc,g++,make,cmake,pkg-config bookworm "$system" ${MIRROR:+"$MIRROR"} > "$log" 2>&1 || {
    tail -n 3 "$log"
    skip "debootstrap cannot make a system here; see $log"
  }
  touch "$system/.complete"
fi

rm -rf "$system/opt/product" "$system/tmp/test"
mkdir -p "$system/opt/product" "$system/tmp/test"
tar -xzf "$tarball" -C "$system/opt/product" --strip-components=1
cat > "$system/tmp/test/run.sh" << 'END'
set -eu
prefix=/opt/product
cd /tmp/test
cp -r $prefix/share/anatomix/example .
cmake -S example -B cmake -DCMAKE_PREFIX_PATH=$prefix > cmake.log
cmake --build cmake > build.log
cmake --install cmake --prefix /tmp/test/shipped > install.log
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
flags="$(pkg-config --cflags --libs anatomix) -Wl,-rpath,$prefix/lib"
gcc -std=c99 example/report.c -o c $flags
g++ -std=c++17 example/minimal.cpp -o cpp $flags
# The product runs where AnatomiX is not installed.
mv $prefix/share/anatomix data
expected=$($prefix/bin/anatomix report data/phantom.dcm --bundle data/reference-bundle)
[ -n "$expected" ]
./c data/reference-bundle data/phantom.dcm > report.txt
./cpp data/reference-bundle data/phantom.dcm > cpp.txt
rm -r $prefix
for program in c cpp; do
  shipped/bin/report_$program data/reference-bundle data/phantom.dcm > shipped_$program.txt
done
cmp report.txt shipped_c.txt
cmp cpp.txt shipped_cpp.txt
grep -qF "$(head -n 1 report.txt)" cpp.txt
echo "$expected" | grep -qF "$(head -n 1 report.txt)"
echo "Debian $(cat /etc/debian_version), glibc $(getconf GNU_LIBC_VERSION | cut -d ' ' -f 2): C and C++ by CMake and by pkg-config"
cat report.txt
END
# A mount namespace of its own: nothing stays mounted. The library reads /proc/self/maps to find the folder that it lies in.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec unshare --mount sh -c 'mount -t proc proc "$1/proc" && exec env -i PATH="$PATH" HOME=/tmp chroot "$1" sh /tmp/test/run.sh' sh "$system"
