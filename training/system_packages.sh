#!/bin/sh
# What tests use from outside Python: OpenGL on EGL for the renderer, libGL for OpenCV,
# PostgreSQL, which they start by themselves in a temporary folder, and a browser for the page.
# Does nothing where they are present; says what to install where it may not install itself.
set -eu
missing=""
for pair in libEGL.so.1:libegl1 libGL.so.1:libgl1; do
    library=${pair%%:*}
    ldconfig -p 2>/dev/null | grep -q "$library" || missing="$missing ${pair##*:}"
done
[ -e /usr/share/glvnd/egl_vendor.d/50_mesa.json ] || missing="$missing libegl-mesa0 libgl1-mesa-dri"
command -v pg_ctl >/dev/null 2>&1 || [ -n "$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null)" ] ||
    missing="$missing postgresql"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq
    # shellcheck disable=SC2086  # one word per package
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
else
    echo "Renderer, PostgreSQL or browser tests will be skipped until these are installed:$missing" >&2
fi
