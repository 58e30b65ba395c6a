#!/bin/sh
# Lays what an image needs of this stage's file system into /rootfs, for a stage that is nothing but that: one layer,
# whatever the base brought along, without documents, caches, installers, or the places where a builder mounts things.
set -eu

mkdir /rootfs
tar --create --one-file-system --directory / --file - --exclude ./rootfs --exclude ./build --exclude './tmp/*' \
    --exclude './proc/*' --exclude './sys/*' --exclude './dev/*' . | tar --extract --preserve-permissions --directory /rootfs --file -
cd /rootfs
rm -rf usr/share/doc/* usr/share/man/* usr/share/info/* usr/share/locale/* usr/share/python-wheels usr/include/* \
    usr/local/include/* usr/local/bin/pip* usr/local/bin/idle* var/lib/apt/lists/* var/cache/apt/* var/cache/debconf/*-old \
    var/log/*.log var/log/apt run/* root/.cache
# Nothing is installed from here on: no apt, and no Perl, which only installing needs. dpkg's list of packages stays, for
# scanners.
rm -rf usr/bin/apt* usr/lib/apt usr/lib/*/libapt-* etc/apt usr/bin/perl* usr/lib/*/perl-base usr/share/perl*
# Tables for old character sets: Python brings its own, everything here is UTF-8.
rm -rf usr/lib/*/gconv
for library in usr/lib/python3.11 usr/local/lib/python3.11; do
    for part in ensurepip idlelib lib2to3 test tkinter turtledemo site-packages/pip site-packages/setuptools; do
        rm -rf "${library:?}/$part" "${library:?}/$part"-*.dist-info
    done
done
# Empty folders that a builder made to mount something on.
find opt mnt -mindepth 1 -depth -type d -empty -delete
for file in etc/hosts etc/hostname etc/resolv.conf; do [ -e "$file" ] || : >"$file"; done
# Nobody becomes somebody else here.
find . -xdev -type f -perm /6000 -exec chmod a-s {} +
